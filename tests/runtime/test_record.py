"""What a run keeps of its pictures: damage, mending and loss change no order, and nothing goes unnoticed."""

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
from vqprior.runtime.data.record import Record, skipped

SMALL = Data(size=(8, 8), validation=0.2, test=0.2)


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.mark.parametrize("memory_gb", [4.0, 0.0])
def test_a_damaged_picture_stops_and_is_named_or_is_left_out_and_listed(pictures, run, memory_gb):
    (pictures / "ant" / "picture0.png").write_bytes(b"\x89PNG no")
    data = replace(SMALL, root=str(pictures), memory_gb=memory_gb)
    with pytest.raises(UserError, match=r"1 of 24 pictures cannot be read: .*picture0\.png .*--data\.on_error skip"):
        load(data, run=run)
    found = load(replace(data, on_error="skip"), run=run)
    assert sum(len(found.split(name)) for name in ("train", "validation", "test")) == 23
    assert list(found.record.unreadable) == ["ant/picture0.png"] and "1 unreadable" in found.summary()


def test_a_picture_cut_in_its_middle_is_met_in_the_run_and_another_one_of_its_class_stands_in(tmp_path, run):
    """Its header is whole, so that only decoding shows it; the order of all others stays."""
    root = write_pictures(tmp_path / "pictures", 24)
    sound = load(replace(SMALL, root=str(root), memory_gb=0))
    victim = sound.train.keys[2]
    before = [sound.train.read(i) for i in range(len(sound.train))]
    whole = (root / victim).read_bytes()
    (root / victim).write_bytes(whole[: len(whole) // 2])
    data = replace(SMALL, root=str(root), memory_gb=0, on_error="skip", workers=0)
    found = load(data, run=run)
    after = [found.train.read(i) for i in range(len(found.train))]
    assert found.train.keys == sound.train.keys
    assert [i for i in range(len(after)) if not np.array_equal(after[i], before[i])] == [2]
    same = [i for i in [*range(3, len(before)), 0] if sound.train.labels[i] == sound.train.labels[2]]
    assert np.array_equal(after[2], before[same[0]])  # of the same class, so that its label stays right
    assert found.train.names(torch.tensor([1, 2])) == [sound.train.keys[1], sound.train.keys[same[0]]]
    assert list(skipped(run)) == [victim]
    (root / victim).write_bytes(whole)  # mended, and still left out: a resumed run makes the same choice
    mended = load(data, run=run)
    assert np.array_equal(mended.train.read(2), before[same[0]])


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
    assert torch.equal(found.train.held[1], begun.train.held[2])  # the next one stands in
    assert torch.equal(found.train.held[2:], begun.train.held[2:])
    assert set(skipped(run)) == {gone, other}


def test_the_same_pictures_elsewhere_and_touched_are_the_same(pictures, run, tmp_path):
    begun = load(replace(SMALL, root=str(pictures)), run=run)
    shutil.copytree(pictures, tmp_path / "moved", copy_function=shutil.copyfile)  # other times
    found = load(replace(SMALL, root=str(tmp_path / "moved")), run=run)
    assert found.fingerprint == begun.fingerprint and not skipped(run)


def test_a_record_is_read_as_it_was_written_and_refused_when_damaged(pictures, run):
    begun = load(replace(SMALL, root=str(pictures)), run=run)
    assert Record.read(run) == begun.record
    (run / "pictures.json.gz").write_bytes(b"no")
    with pytest.raises(UserError, match="damaged"):
        load(replace(SMALL, root=str(pictures)), run=run)


def test_the_summary_says_what_was_seen(pictures):
    said = load(replace(SMALL, root=str(pictures))).summary()
    for words in (str(pictures), "ant (12), bee (12)", "cut from train", "24 PNG, 10x12"):
        assert words in said, said


def test_prepared_pictures_are_decoded_once_and_are_the_same(pictures, tmp_path, monkeypatch):
    data = replace(SMALL, root=str(pictures), cache=str(tmp_path / "cache"), margin=1)
    first = load(data)
    monkeypatch.setattr("vqprior.runtime.data.decode", lambda *a, **o: pytest.fail("decoded again"))
    second = load(data)
    for name in ("train", "validation", "test"):
        assert torch.equal(first.split(name).held, second.split(name).held)
    monkeypatch.undo()
    colour(55).save(pictures / first.train.keys[0])  # another picture is never taken for the one before
    assert not torch.equal(load(data).train.held[0], first.train.held[0])
    assert not torch.equal(load(replace(data, channels=1)).train.held, first.train.held)


def test_a_half_written_prepared_picture_counts_as_none(tmp_path):
    kept = Prepared.of(tmp_path, "train", Data(size=(4, 4)), ["a", "b"])
    picture = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    kept.put(1, picture)
    assert kept.get(0) is None and np.array_equal(pickle.loads(pickle.dumps(kept)).get(1), picture)
    with open(next(tmp_path.glob("*.pixels")), "r+b") as file:
        file.seek(48 + 7)
        file.write(b"\xff")
    assert kept.get(1) is None
