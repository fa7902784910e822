"""Sampling to files: in chunks, resumable, the same bytes however it is shared out."""

import errno
import io
import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from vqprior.sampling import generate, networks


@pytest.fixture(scope="module")
def drawn(finished_run, tmp_path_factory):
    """Eleven images in chunks of four."""
    from tests.launch import run_processes

    out = tmp_path_factory.mktemp("drawn") / "samples"
    done = run_processes(
        ["sample", finished_run, "--images", 11, "--batch_size", 4, "--seed", 5, "--out", out]
    )
    assert done.returncode == 0, done.stderr
    return out


def load(out, key: str = "images") -> np.ndarray:
    with np.load(out / "samples.npz") as arrays:
        return arrays[key]


def test_the_files_hold_the_same_images(drawn):
    images = load(drawn)
    assert images.shape == (11, 8, 8, 3) and images.dtype == np.uint8
    assert load(drawn, "labels").tolist() == [0, 1] * 5 + [0] and load(drawn, "labels").dtype == np.int64
    files = sorted((drawn / "images").iterdir())
    assert [file.name for file in files] == [f"{i:05d}.png" for i in range(11)]
    assert all(
        np.array_equal(np.asarray(Image.open(file)), image) for file, image in zip(files, images, strict=True)
    )
    assert not (drawn / ".unfinished").exists()


def test_the_archive_is_what_numpy_writes(drawn):
    buffer = io.BytesIO()
    np.savez(buffer, images=load(drawn), labels=load(drawn, "labels"), label_names=np.array(["ant", "bee"]))
    with zipfile.ZipFile(buffer) as expected, zipfile.ZipFile(drawn / "samples.npz") as found:
        assert found.namelist() == expected.namelist()
        assert all(found.read(name) == expected.read(name) for name in found.namelist())


def test_image_i_is_image_i_for_every_n_and_chunk(drawn, finished_run, tmp_path, command):
    for n, batch_size in ((3, 4), (7, 4), (11, 3), (11, 64)):
        out = tmp_path / f"{n}-{batch_size}"
        code, printed = command(
            "sample", finished_run, "--images", n, "--batch_size", batch_size, "--seed", 5, "--out", out
        )
        assert code == 0, printed
        assert np.array_equal(load(out), load(drawn)[:n])


def test_a_killed_call_draws_only_what_is_missing(drawn, finished_run, tmp_path, command, monkeypatch):
    """Killed after two chunks, with a picture of the third one half-written; then once more, after the folder
    was moved."""
    out, real, calls = tmp_path / "samples", generate.write_array, []

    def dies(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(*arguments)

    arguments = ["sample", finished_run, "--images", 11, "--batch_size", 4, "--seed", 5, "--out", out]
    monkeypatch.setattr(generate, "write_array", dies)
    assert command(*arguments)[0] == 130
    (out / ".unfinished" / "images" / "00008.png").write_bytes(b"half")
    monkeypatch.setattr(generate, "save_png", dies)
    calls[:] = [None]
    assert command(*arguments)[0] == 130 and len(calls) == 3  # the third chunk, and then the grid
    assert (out / "images").is_dir() and not (out / "samples.json").exists()
    monkeypatch.undo()
    assert command(*arguments)[0] == 0
    for file in ("samples.npz", "grid.png", "samples.json", "images/00008.png"):
        assert (out / file).read_bytes() == (drawn / file).read_bytes(), file
    assert "done" in command(*arguments)[1]


@pytest.mark.slow
def test_no_more_than_a_chunk_is_held(finished_run, tmp_path, command, monkeypatch):
    """Whatever is loaded or drawn is let go of before the next: counted on the arrays themselves."""
    import gc
    import weakref

    alive: list[weakref.ref] = []
    most = 0

    def counted(path, **options):
        nonlocal most
        array = real(path, **options)
        alive.append(weakref.ref(array))
        gc.collect()
        most = max(most, sum(reference() is not None for reference in alive))
        return array

    real = np.load
    monkeypatch.setattr(np, "load", counted)
    sample = ["sample", finished_run, "--images", 160, "--batch_size", 5, "--out", tmp_path / "samples"]
    gc.freeze()  # what was there before takes long to walk
    try:
        assert command(*sample)[0] == 0
    finally:
        gc.unfreeze()
    assert len(alive) > 32 and most <= 20 + 2  # the grid shows a hundred images, which are twenty chunks


def test_the_key_of_the_evaluator_of_guided_diffusion(finished_run, tmp_path, command):
    out = tmp_path / "samples"
    assert command("sample", finished_run, "--images", 3, "--npz_key", "arr_0", "--out", out)[0] == 0
    assert load(out, "arr_0").shape == (3, 8, 8, 3)
    shutil.rmtree(out)


def test_a_damaged_record_is_drawn_again(drawn, finished_run, tmp_path, command):
    out = tmp_path / "samples"
    shutil.copytree(drawn, out)
    (out / "samples.json").write_text("{")
    assert command("sample", finished_run, "--images", 3, "--out", out)[0] == 0
    assert len(load(out)) == 3 and len(list((out / "images").iterdir())) == 3


def test_a_method_that_auto_guessed_is_said(finished_run, tmp_path, command, monkeypatch):
    flags = ["--images", 2, "--out", tmp_path / "out"]
    assert "--method auto is" not in command("sample", finished_run, *flags)[1]
    monkeypatch.setattr(networks, "MANY_PLACES", 1)
    monkeypatch.setattr(networks.graph, "can_record", lambda device: True)
    assert "--method auto is parallel here" in command("sample", finished_run, *flags, "--seed", 1)[1]


def test_auto_becomes_the_number_that_was_used(finished_run, tmp_path, command, monkeypatch):
    """It is written down, and a call that was killed goes on with its chunks, whatever the rule says now."""
    arguments = ["sample", finished_run, "--images", 7, "--batch_size", "auto"]
    monkeypatch.setattr(networks, "automatic", lambda *given: 3)
    assert command(*arguments, "--out", tmp_path / "whole")[0] == 0
    assert json.loads((tmp_path / "whole" / "samples.json").read_text())["batch_size"] == 3

    real, calls = generate.write_array, []

    def dies(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(*arguments)

    out = tmp_path / "samples"
    monkeypatch.setattr(generate, "write_array", dies)
    assert command(*arguments, "--out", out)[0] == 130
    monkeypatch.setattr(networks, "automatic", lambda *given: 64)
    # the second chunk again, and the third
    assert command(*arguments, "--out", out)[0] == 0 and len(calls) == 4
    for file in ("samples.npz", "samples.json"):
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert "done" in command(*arguments, "--out", out)[1]
    assert "done" not in command(*arguments, "--seed", 1, "--out", out)[1]
    assert json.loads((out / "samples.json").read_text())["batch_size"] == 64


@pytest.mark.parametrize("chunk", [1, 3])
def test_a_full_disk_is_a_message_and_the_same_command_goes_on(
    drawn, finished_run, tmp_path, command, monkeypatch, chunk
):
    """In whatever chunk a thread meets it, the last one too."""
    out, real, calls = tmp_path / "samples", generate.write_array, []

    def full(path, arrays):
        calls.append(path)
        if len(calls) == chunk:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, arrays)

    arguments = ["sample", finished_run, "--images", 11, "--batch_size", 4, "--seed", 5, "--out", out]
    monkeypatch.setattr(generate, "write_array", full)
    code, printed = command(*arguments)
    assert code == 2 and "No space left on device" in printed and "make room" in printed
    assert not (out / "samples.json").exists()
    monkeypatch.undo()
    assert command(*arguments)[0] == 0
    assert (out / "samples.npz").read_bytes() == (drawn / "samples.npz").read_bytes()


def test_going_on_with_a_smaller_batch_is_heeded(finished_run, tmp_path, command, monkeypatch):
    """As where the first one did not fit; what is done is done with any."""
    arguments = ["sample", finished_run, "--images", 11, "--seed", 5, "--out", tmp_path / "out"]

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(generate, "save_png", dies)
        assert command(*arguments, "--batch_size", 9)[0] == 130
    assert command(*arguments, "--batch_size", 2)[0] == 0
    assert json.loads((tmp_path / "out" / "samples.json").read_text())["batch_size"] == 2
    assert "done" in command(*arguments, "--batch_size", 9)[1]
