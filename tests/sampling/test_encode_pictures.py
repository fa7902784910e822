"""The codes of any pictures, as files: those of the encoder, each with its name, however they are made."""

import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from tests.conftest import colour
from tests.launch import run_processes
from vqprior import Tokenizer
from vqprior.runtime.data.transform import prepare
from vqprior.runtime.run_dir import RunDir
from vqprior.sampling import encode_pictures

NAMES = [*(f"deep/päckchen {i}.png" for i in range(3)), *(f"{i:02}.jpg" for i in range(20))]  # two chunks


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    (root / "deep").mkdir(parents=True)
    for index, name in enumerate(NAMES):
        colour(100 + index, height=9 + index, width=23 - index).save(root / name)
    (root / "notes.txt").write_text("no picture")
    return root


@pytest.fixture
def encode(finished_run, command, photos, tmp_path):
    """`vqprior encode RUN --pictures photos --out out`: exit code and what was printed."""

    def call(*flags: object, run=finished_run) -> tuple[int, str]:
        return command("encode", run, "--pictures", photos, "--out", tmp_path / "out", *flags)

    return call


def archive(out) -> dict[str, np.ndarray]:
    with np.load(out / "codes.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def files(out) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def expected(run, path) -> np.ndarray:
    """The codes [h, w] of a picture, prepared like those of the run."""
    pixels = prepare(Image.open(path), RunDir(run).config().data).transpose(1, 2, 0)
    return Tokenizer.from_run(run).encode(pixels[None])[0]


def test_each_name_has_the_codes_of_its_picture(encode, finished_run, photos, tmp_path):
    code, printed = encode()
    assert code == 0 and "23 pictures -> 2x2 codes of 16, codes.npz" in printed, printed
    assert "left out: 1 ending .txt" in printed
    found = archive(tmp_path / "out")
    assert sorted(found["names"].tolist()) == sorted(NAMES) and found["K"] == 16
    assert found["codes"].dtype == np.uint8 and found["label_names"].tolist() == ["ant", "bee"]
    for name, codes in zip(found["names"], found["codes"], strict=True):
        assert np.array_equal(codes, expected(finished_run, photos / name)), name
    assert len(np.unique(found["codes"], axis=0)) > 3  # they tell pictures apart
    assert not (tmp_path / "out" / ".unfinished").exists()


def test_parquet_says_the_same(encode, tmp_path):
    assert encode()[0] == 0
    pq = pytest.importorskip("pyarrow.parquet")
    table, found = pq.read_table(tmp_path / "out" / "codes.parquet"), archive(tmp_path / "out")
    assert table.column_names == ["name", "codes"] and str(table.schema.field("codes").type).endswith("[4]")
    about = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    height, width = int(about["height"]), int(about["width"])
    assert json.loads(about["label_names"]) == ["ant", "bee"] and about["K"] == "16"
    codes = np.array(table["codes"].to_pylist()).reshape(-1, height, width)
    assert np.array_equal(codes, found["codes"]) and table["name"].to_pylist() == found["names"].tolist()


def test_the_same_again_is_done_and_a_changed_picture_is_not(encode, finished_run, photos, tmp_path):
    assert encode()[0] == 0
    before = files(tmp_path / "out")
    code, printed = encode()
    assert code == 0 and "encode: done" in printed and files(tmp_path / "out") == before
    colour(999).save(photos / "00.jpg")
    code, printed = encode()
    assert code == 0 and "encode: done" not in printed
    found = archive(tmp_path / "out")
    codes = found["codes"][found["names"].tolist().index("00.jpg")]
    assert np.array_equal(codes, expected(finished_run, photos / "00.jpg"))


def test_several_processes_write_the_same(encode, finished_run, photos, tmp_path):
    assert encode()[0] == 0
    words = ["encode", finished_run, "--pictures", photos, "--out", tmp_path / "two"]
    done = run_processes(words, processes=2)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "two") == files(tmp_path / "out")


def test_a_killed_call_goes_on(encode, tmp_path, monkeypatch):
    assert encode()[0] == 0
    whole = files(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    real, written = encode_pictures.write_array, []

    def dies(file, array):
        if written:
            raise KeyboardInterrupt
        written.append(file)
        real(file, array)

    monkeypatch.setattr(encode_pictures, "write_array", dies)
    assert encode()[0] == 130
    assert not (tmp_path / "out" / "codes.npz").exists()
    noting = lambda file, array: (written.append(file), real(file, array))
    monkeypatch.setattr(encode_pictures, "write_array", noting)
    assert encode()[0] == 0
    assert len(written) == 2 and files(tmp_path / "out") == whole


def test_a_run_that_skips_damaged_pictures_skips_those_of_others(encode, finished_run, photos, tmp_path):
    (photos / "03.jpg").write_bytes(b"no picture")
    run = shutil.copytree(finished_run, tmp_path / "run")
    text = (run / "config.yaml").read_text()
    assert "on_error: stop" in text
    (run / "config.yaml").write_text(text.replace("on_error: stop", "on_error: skip"))
    assert encode("--on_error", "stop", run=run)[0] == 2
    code, printed = encode(run=run)
    assert code == 0 and "1 picture left out" in printed, printed


def test_a_damaged_picture_stops_it_or_is_left_out(encode, photos, tmp_path):
    (photos / "03.jpg").write_bytes((photos / "03.jpg").read_bytes()[:200])
    code, printed = encode()
    assert code == 2 and "03.jpg cannot be read" in printed and "--on_error skip" in printed
    assert not (tmp_path / "out" / "codes.npz").exists()
    code, printed = encode("--on_error", "skip")
    assert code == 0 and "1 picture left out that could not be read" in printed, printed
    found = archive(tmp_path / "out")
    assert len(found["names"]) == len(found["codes"]) == 22 and "03.jpg" not in found["names"].tolist()
    assert (tmp_path / "out" / "skipped.txt").read_text().startswith("pictures\t03.jpg\t")
    assert len(archive(tmp_path / "out")["names"]) == 22


def test_when_none_can_be_read_it_says_so(encode, photos):
    for path in photos.rglob("*.*g"):
        path.write_bytes(b"no picture")
    code, printed = encode("--on_error", "skip")
    assert code == 2 and "none of the 23 pictures can be read" in printed


def test_pictures_of_more_than_8_bits_take_a_range(encode, photos, finished_run, tmp_path):
    grey = np.linspace(0, 4095, 64).reshape(8, 8)
    np.save(photos / "scan.npy", grey.astype(np.uint16))
    code, printed = encode()
    assert code == 2 and "scan.npy has more than 8 bits" in printed and "--range LOW HIGH" in printed
    code, printed = encode("--range", 0, 4095)
    assert code == 0, printed
    found = archive(tmp_path / "out")
    Image.fromarray((grey / 4095 * 255).round().astype(np.uint8)).save(tmp_path / "scan.png")
    codes = found["codes"][found["names"].tolist().index("scan.npy")]
    assert np.array_equal(codes, expected(finished_run, tmp_path / "scan.png"))


def test_without_pyarrow_there_is_the_archive_alone(encode, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, printed = encode()
    assert code == 0 and "pip install 'vqprior[data]'" in printed
    assert sorted(files(tmp_path / "out")) == ["codes.json", "codes.npz"]


def test_one_picture_is_encoded_as_in_its_folder(finished_run, command, photos, tmp_path):
    picture = photos / "deep" / "päckchen 1.png"
    code, printed = command("encode", finished_run, "--pictures", picture, "--out", tmp_path / "out")
    assert code == 0 and "1 picture -> 2x2 codes" in printed, printed
    found = archive(tmp_path / "out")
    assert found["names"].tolist() == [picture.name]
    assert np.array_equal(found["codes"][0], expected(finished_run, picture))


def test_a_run_without_a_prior_will_do(encode, finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "bare", ignore=shutil.ignore_patterns("stage2", "codes"))
    assert encode()[0] == 0
    there = archive(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    assert encode(run=tmp_path / "bare")[0] == 0
    assert np.array_equal(archive(tmp_path / "out")["codes"], there["codes"])
    assert "label_names" not in archive(tmp_path / "out")


def test_mistakes_are_answered(command, finished_run, photos, tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "codes.npz").write_bytes(b"mine")
    (tmp_path / "empty").mkdir()
    packed = tmp_path / "photos.zip"
    packed.write_bytes(b"PK")
    table = tmp_path / "photos.parquet"
    table.write_bytes(b"PAR1")
    for flags, words in (
        (["--pictures", tmp_path / "nowhere", "--out", out], "no folder of images, and no image; give"),
        (
            ["--pictures", packed, "--out", tmp_path / "o"],
            "no folder of images, and no image; unpack what is",
        ),
        (["--pictures", photos / "notes.txt", "--out", tmp_path / "o"], "not a picture of a known format"),
        (["--pictures", table, "--out", tmp_path / "o"], "not a picture of a known format"),
        (["--pictures", tmp_path / "empty", "--out", tmp_path / "o"], "no images are under"),
        (["--pictures", photos, "--out", out], "nothing that `encode --pictures` wrote"),
        (["--pictures", photos], "--out"),
        (["--pictures", photos, "--out", tmp_path / "o", "--range", 5, 5], "LOW HIGH"),
        (["--pictures", photos, "--out", tmp_path / "o", "--stage1.K", 3], "--stage1.K"),
    ):
        code, printed = command("encode", finished_run, *flags)
        assert code == 2 and words in printed, printed
    assert (out / "codes.npz").read_bytes() == b"mine"
    assert "--on_error" in command("encode", finished_run, "--pictures", photos, "--help")[1]
