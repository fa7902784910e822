import json
import pickle

import pytest
import torch
from safetensors import SafetensorError

from vqprior.configs import UserError
from vqprior.runtime import checkpoint


def save(folder, step: int, score: float | None = None) -> None:
    tensors = {
        "model": {"w": torch.full((3, 2), float(step))},
        "optimizer": {"0.step": torch.tensor(float(step))},
    }
    checkpoint.save(folder, step, tensors, {"stage": "stage1", "note": [1, 2]}, score)


def test_round_trip(tmp_path):
    save(tmp_path, 7, 0.5)
    found = checkpoint.newest(tmp_path)
    assert (found.step, found.score, found.meta["note"]) == (7, 0.5, [1, 2])
    assert torch.equal(found.tensors("model")["w"], torch.full((3, 2), 7.0))
    assert found.weights == "model" and len(found.fingerprint) == 64


def test_who_may_read_a_checkpoint_is_for_the_umask_to_say(tmp_path):
    save(tmp_path, 1)
    assert len({path.stat().st_mode for path in (tmp_path / "step-00000001").iterdir()}) == 1


def test_nothing_there_is_none_and_best_says_so(tmp_path):
    assert checkpoint.newest(tmp_path) is None
    with pytest.raises(UserError, match="train that stage first"):
        checkpoint.best(tmp_path)
    for stage, command in (("stage1", "train-vqvae"), ("stage2-1", "train-prior")):
        with pytest.raises(UserError, match=f"vqprior {command} {tmp_path}$"):
            checkpoint.best(tmp_path / stage)


def test_prune_keeps_the_latest_and_the_best(tmp_path):
    for step, score in ((1, 0.3), (2, 0.1), (3, 0.2), (4, None), (5, 0.4)):
        save(tmp_path, step, score)
    checkpoint.prune(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-00000002",
        "step-00000004",
        "step-00000005",
    ]
    assert checkpoint.best(tmp_path).step == 2


def test_what_a_kill_left_of_a_deleted_checkpoint_is_passed_over(tmp_path):
    for step, score in ((1, 0.1), (2, 0.2), (3, 0.3)):
        save(tmp_path, step, score)
    (tmp_path / "step-00000001" / "manifest.json").unlink()
    assert checkpoint.best(tmp_path).step == 2
    checkpoint.prune(tmp_path, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


def truncate(file):
    file.write_bytes(file.read_bytes()[:-3])


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, lambda f: f.write_bytes(b""), lambda f: f.unlink()])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "manifest.json"])
def test_a_damaged_checkpoint_is_passed_over_in_words(tmp_path, damage, name):
    save(tmp_path, 1)
    save(tmp_path, 2)
    damage(tmp_path / "step-00000002" / name)
    said = []
    if name == "manifest.json" and damage is flip_a_bit:
        damage = truncate  # a flipped bit in the last line break of JSON harms nothing; cut into it instead
        damage(tmp_path / "step-00000002" / name)
    assert checkpoint.newest(tmp_path, warn=said.append).step == 1
    assert len(said) == 1 and "step-00000002" in said[0]
    (tmp_path / "step-00000001" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="every checkpoint"):
        checkpoint.newest(tmp_path, warn=said.append)


def test_a_killed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def full(*_: object) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_newer_format_is_refused(tmp_path):
    save(tmp_path, 1)
    manifest = tmp_path / "step-00000001" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        checkpoint.read(manifest.parent)


@pytest.mark.parametrize("part", ["meta", "files"])
def test_a_manifest_without_its_tables_is_refused(tmp_path, part):
    save(tmp_path, 1)
    manifest = tmp_path / "step-00000001" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {part: None}))
    with pytest.raises(UserError, match="manifest is missing or damaged"):
        checkpoint.read(manifest.parent)


@pytest.mark.parametrize("write", [lambda payload, file: file.write_bytes(pickle.dumps(payload)), torch.save])
def test_a_pickle_in_a_checkpoint_is_never_executed(tmp_path, write):
    class Payload:
        def __reduce__(self):
            return (open, (str(executed), "w"))

    executed = tmp_path / "executed"
    pickle.loads(pickle.dumps(Payload())).close()  # that it would do harm
    executed.unlink()
    save(tmp_path, 1)
    weights = tmp_path / "step-00000001" / "model.safetensors"
    write(Payload(), weights)
    manifest = weights.with_name("manifest.json")
    tree = json.loads(manifest.read_text())
    tree["files"][weights.name] = checkpoint.sha256(weights)  # the attacker writes a right checksum
    manifest.write_text(json.dumps(tree))
    with pytest.raises(UserError, match="damaged"):
        checkpoint.newest(tmp_path, warn=lambda text: None).tensors("model")
    assert not executed.exists()


def test_tensors_that_are_missing_are_passed_over_without_reading_any(tmp_path):
    """As in a run that was copied in part: what stands before is used, and can be told the size of."""
    save(tmp_path, 1, score=1.0)
    save(tmp_path, 2, score=0.5)
    assert checkpoint.is_evaluated(tmp_path)
    (tmp_path / "step-00000002" / "model.safetensors").unlink()
    assert [saved.step for saved in checkpoint.readable(tmp_path)] == [1]
    assert checkpoint.best(tmp_path).megabytes > 0
    (tmp_path / "step-00000001" / "model.safetensors").unlink()
    assert not checkpoint.is_evaluated(tmp_path)


def test_weights_that_ran_away_are_never_the_best(tmp_path):
    """Nor is the best one deleted for their sake."""
    for step, score in enumerate((0.5, 0.4, float("nan"), None, float("nan")), 1):
        save(tmp_path, step, score=score)
        checkpoint.prune(tmp_path, 2)
    assert checkpoint.best(tmp_path).step == 2
    assert [saved.step for saved in checkpoint.readable(tmp_path)] == [5, 4, 2]
