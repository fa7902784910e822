"""What a run keeps of its pictures: damage, mending and loss change no order, and nothing goes unnoticed."""

import gzip
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.conftest import colour, write_pictures
from vqprior.configs import UserError
from vqprior.configs.schema import Data
from vqprior.runtime.data import load
from vqprior.runtime.data.prepared import Prepared
from vqprior.runtime.data.record import SKIPPED, Record, noted
from vqprior.runtime.randomness import share_of

SMALL = Data(size=(8, 8), validation=0.2, test=0.2)


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.mark.parametrize("memory_gb", [4.0, 0.0])
def test_a_damaged_picture_stops_and_is_named_or_is_left_out_and_listed(pictures, run, memory_gb):
    (pictures / "ant" / "picture0.png").write_bytes(b"\x89PNG no")
    data = replace(SMALL, root=str(pictures), memory_gb=memory_gb)
    with pytest.raises(
        UserError, match=r"1 of 24 pictures cannot be read: .*picture0\.png .*--data\.on_error skip"
    ):
        load(data, run=run)
    found = load(replace(data, on_error="skip"), run=run)
    assert sum(len(found.split(name)) for name in ("train", "validation", "test")) == 23
    assert (
        list(found.record.unreadable["train"]) == ["ant/picture0.png"] and "1 unreadable" in found.summary()
    )
    assert list(noted(run / SKIPPED)) == [("train", "ant/picture0.png")]


def test_names_of_several_lines_are_listed_in_one_each_and_found_again(tmp_path, run):
    root = write_pictures(tmp_path / "pictures", 60, ())
    names = ("two\nlines.png", "a\ttab.png", "\x1b[2J.png")
    one_line = {r"two\nlines.png", r"a\ttab.png", r"\x1b[2J.png"}
    for name in names:
        shutil.copy(root / "picture0.png", root / name)
    data = replace(SMALL, root=str(root), on_error="skip", memory_gb=0)
    begun = load(data, run=run)
    for name in names:
        (root / name).write_bytes(b"no picture")
    for folder in (run, tmp_path):
        with pytest.raises(UserError) as refused:
            load(replace(data, on_error="stop"), run=folder)
        assert len(str(refused.value).splitlines()) == 1 and "\x1b" not in str(refused.value)
    load(data, run=run)
    listed = (run / SKIPPED).read_text()
    assert {line.split("\t")[1] for line in listed.splitlines()} == one_line
    for name in names:  # mended, and still left out
        shutil.copy(root / "picture0.png", root / name)
    again = load(data, run=run)
    assert sum(len(again.split(name).absent) for name in ("train", "validation", "test")) == 3
    assert (run / SKIPPED).read_text() == listed and again.fingerprint == begun.fingerprint


def test_where_nothing_can_be_read_that_is_said(tmp_path):
    root = write_pictures(tmp_path / "pictures")
    for path in root.rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"no picture of the train split can be read: .*known format"):
        load(replace(SMALL, root=str(root), on_error="skip"))


def test_a_picture_cut_in_its_middle_is_met_in_the_run_and_another_one_of_its_class_stands_in(tmp_path, run):
    """Its header is whole, so that only decoding shows it; the order of all others stays."""
    root = write_pictures(tmp_path / "pictures", 24)
    sound = load(replace(SMALL, root=str(root), memory_gb=0))
    victim = sound.train.keys[2]
    before = [sound.train.read(i) for i in range(len(sound.train))]
    whole = (root / victim).read_bytes()
    (root / victim).write_bytes(whole[: len(whole) // 2])
    data = replace(SMALL, root=str(root), memory_gb=0, on_error="skip", workers=0)
    load(replace(data, on_error="stop"), run=run)  # nothing is decoded yet
    found = load(data, run=run)
    after = [found.train.read(i) for i in range(len(found.train))]
    assert found.train.keys == sound.train.keys
    assert [i for i in range(len(after)) if not np.array_equal(after[i], before[i])] == [2]
    standing = next(i for i in range(len(before)) if np.array_equal(after[2], before[i]))
    assert sound.train.labels[standing] == sound.train.labels[2]  # so that its label stays right
    assert found.train.names(torch.tensor([1, 2])) == [sound.train.keys[1], sound.train.keys[standing]]
    assert list(noted(run / SKIPPED)) == [("train", victim)]
    (root / victim).write_bytes(whole)  # mended, and still left out: a resumed run makes the same choice
    mended = load(data, run=run)
    assert np.array_equal(mended.train.read(2), after[2])


@pytest.mark.parametrize("memory_gb", [4.0, 0.0])
def test_a_new_run_is_begun_without_pictures_that_are_cut_off(tmp_path, run, memory_gb):
    """Also where no other of its class is in the split; an empty split is refused."""
    write_pictures(tmp_path / "pictures" / "train", 12)
    held_out = write_pictures(tmp_path / "pictures" / "val", 6)
    write_pictures(tmp_path / "pictures" / "test", 4)

    def cut(path):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 2 // 3])

    for path in (held_out / "bee").iterdir():
        cut(path)
    data = Data(size=(8, 8), root=str(tmp_path / "pictures"), memory_gb=memory_gb, on_error="skip")
    found = load(data, run=run)
    assert found.validation.labels.tolist() == [0, 0, 0] and len(noted(run / SKIPPED)) == 3
    assert found.validation.images(torch.arange(3)).float().std() > 0
    for path in (held_out / "ant").iterdir():
        cut(path)
    with pytest.raises(UserError, match="no picture of the validation split can be read: ant/"):
        load(data, run=tmp_path / "other")


def test_a_picture_that_ended_the_run_is_taken_once_it_is_mended(tmp_path, run):
    root = write_pictures(tmp_path / "pictures", 24)
    data = replace(SMALL, root=str(root), memory_gb=0, workers=0)
    victim = load(data).train.keys[3]
    whole = (root / victim).read_bytes()
    (root / victim).write_bytes(whole[: len(whole) // 2])
    begun = load(data, run=run)
    with pytest.raises(UserError, match=r"cannot be read .*--data\.on_error skip"):
        begun.train.read(3)
    (root / victim).write_bytes(whole)
    again = load(data, run=run)
    assert again.fingerprint == begun.fingerprint and again.train.read(3).shape == (3, 8, 8)


def test_the_order_of_a_begun_run_outlives_loss_and_change(pictures, run):
    data = replace(SMALL, root=str(pictures))
    begun = load(data, run=run)
    gone, other = begun.train.keys[1], begun.test.keys[0]
    (pictures / gone).unlink()
    colour(77).save(pictures / other)
    with pytest.raises(UserError, match=r"2 of the 24 pictures that .* began with") as refused:
        load(data, run=run)
    assert f"{gone} (it is gone)" in str(refused.value)
    assert f"{other} (it is another picture now)" in str(refused.value)
    found = load(replace(data, on_error="skip"), run=run)
    assert found.fingerprint == begun.fingerprint and found.train.keys == begun.train.keys
    assert torch.equal(found.train.labels, begun.train.labels)
    standing = [i for i in range(len(begun.train)) if torch.equal(found.train.held[1], begun.train.held[i])]
    assert standing and 1 not in standing and begun.train.labels[standing[0]] == begun.train.labels[1]
    assert torch.equal(found.train.held[2:], begun.train.held[2:])
    assert set(noted(run / SKIPPED)) == {("train", gone), ("test", other)}


def test_the_same_pictures_elsewhere_and_touched_are_the_same(pictures, run, tmp_path):
    begun = load(replace(SMALL, root=str(pictures)), run=run)
    shutil.copytree(pictures, tmp_path / "moved", copy_function=shutil.copyfile)  # other times
    found = load(replace(SMALL, root=str(tmp_path / "moved")), run=run)
    assert found.fingerprint == begun.fingerprint and not noted(run / SKIPPED)


def test_a_record_is_read_as_it_was_written_and_refused_when_damaged(pictures, run):
    begun = load(replace(SMALL, root=str(pictures)), run=run)
    assert Record.read(run) == begun.record
    whole = (run / "pictures.json.gz").read_bytes()
    inside = whole[:40] + b"\xff" * 10 + whole[50:]
    for damaged in (b"no", whole[:-20], inside, gzip.compress(b"3"), gzip.compress(b'"no"')):
        (run / "pictures.json.gz").write_bytes(damaged)
        with pytest.raises(UserError, match=r"pictures\.json\.gz is damaged"):
            load(replace(SMALL, root=str(pictures)), run=run)


def test_the_summary_says_what_was_seen(pictures):
    said = load(replace(SMALL, root=str(pictures))).summary()
    for words in (str(pictures), "ant (12), bee (12)", "cut from train", "24 PNG, 10x12"):
        assert words in said, said
    assert "no picture in train" not in said and said.count("by a hash") == 1, said
    held_out = next(name for name in map("cow/{}.png".format, range(99)) if share_of(name) < SMALL.test)
    (pictures / "cow").mkdir()
    colour(99).save(pictures / held_out)
    said = load(replace(SMALL, root=str(pictures))).summary()
    assert "3 classes: ant (12), bee (12), cow (1)" in said and "no picture in train of cow:" in said, said


def test_prepared_pictures_are_decoded_once_and_are_the_same(pictures, tmp_path, monkeypatch):
    data = replace(SMALL, root=str(pictures), cache=str(tmp_path / "cache"), margin=1)
    first = load(data)
    monkeypatch.setattr("vqprior.runtime.data.split.decode", lambda *a, **o: pytest.fail("decoded again"))
    second = load(data)
    for name in ("train", "validation", "test"):
        assert torch.equal(first.split(name).held, second.split(name).held)
    monkeypatch.undo()
    colour(55).save(pictures / first.train.keys[0])  # another picture is never taken for the one before
    assert not torch.equal(load(data).train.held[0], first.train.held[0])
    assert not torch.equal(load(replace(data, channels=1)).train.held, first.train.held)


@pytest.mark.parametrize("folder", ["", "ant"])
def test_a_cache_among_the_pictures_is_refused(pictures, folder):
    """Its mark had made the class be left out from then on."""
    with pytest.raises(UserError, match=r"give another one with --data\.cache"):
        load(replace(SMALL, root=str(pictures), cache=str(pictures / folder)))
    assert load(replace(SMALL, root=str(pictures), cache=str(pictures / "cache"))).label_names == (
        "ant",
        "bee",
    )


def test_a_half_written_prepared_picture_counts_as_none(tmp_path):
    kept = Prepared.of(tmp_path, "train", Data(size=(4, 4)), ["a", "b"])
    picture = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    kept.put(1, picture)
    assert kept.get(0) is None and np.array_equal(pickle.loads(pickle.dumps(kept)).get(1), picture)
    with open(next(tmp_path.glob("*.pixels")), "r+b") as file:
        file.seek(48 + 7)
        file.write(b"\xff")
    assert kept.get(1) is None


def two_splits(root) -> None:
    """Folders train and test, in which pictures have the same names."""
    for index, split in enumerate(("train", "test")):
        for number in range(12):
            folder = root / split / ("ant", "bee")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            colour(100 * index + number).save(folder / f"{number:02d}.png")


def test_a_damaged_picture_of_train_is_not_the_one_of_that_name_in_test(tmp_path, run):
    two_splits(tmp_path / "pictures")
    data = replace(SMALL, root=str(tmp_path / "pictures"), validation=0.3, on_error="skip")
    sound = load(data)
    (tmp_path / "pictures" / "train" / "ant" / "02.png").write_bytes(b"no picture")
    found, again = load(data, run=run), load(data, run=run)
    for loaded in (found, again):
        assert torch.equal(loaded.test.held, sound.test.held) and loaded.new == 0
        assert len(loaded.train) + len(loaded.validation) == 11


def test_which_pictures_are_in_the_data_does_not_depend_on_memory(pictures, tmp_path):
    whole = (pictures / "ant" / "picture0.png").read_bytes()
    (pictures / "ant" / "picture0.png").write_bytes(whole[: len(whole) // 2])
    data = replace(SMALL, root=str(pictures), on_error="skip", cache=str(tmp_path / "cache"))
    held, streamed = load(data), load(replace(data, memory_gb=0))
    assert held.fingerprint == streamed.fingerprint and "ant/picture0.png" in held.record.unreadable["train"]
    # what is left of a split takes the place of the whole
    assert len([*(tmp_path / "cache").glob("*.pixels")]) <= 4


def test_other_contents_and_classes_are_noticed_where_no_file_has_a_time(tmp_path, run, monkeypatch):
    from vqprior.runtime.data import mnist5k
    from vqprior.runtime.data.source import Source, from_arrays

    images, labels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8), np.arange(60) % 3
    source = lambda x, y: lambda data: Source(from_arrays(x, y), None, ("a", "b", "c"))
    data = replace(SMALL, source="mnist5k")
    monkeypatch.setattr(mnist5k, "load", source(images, labels))
    load(data, run=run)
    load(data, run=run)
    monkeypatch.setattr(mnist5k, "load", source(255 - images, labels))
    with pytest.raises(UserError, match=r"60 of the 60 pictures .*it is another picture now"):
        load(data, run=run)
    with pytest.raises(UserError, match="more than half, too many to go on without"):
        load(replace(data, on_error="skip"), run=run)
    monkeypatch.setattr(mnist5k, "load", source(images, np.where(np.arange(60) == 7, 0, labels)))
    with pytest.raises(UserError, match=r"1 of the 60 pictures .*its class was b and is a now"):
        load(data, run=run)


def test_before_anything_is_learnt_other_settings_choose_other_pictures(pictures, run):
    first = load(replace(SMALL, root=str(pictures)), run=run)
    other = load(replace(SMALL, root=str(pictures), labels=False, validation=0.4), run=run, begun=False)
    assert other.label_names == () and len(other.validation) > len(first.validation)
    assert Record.read(run) == other.record
