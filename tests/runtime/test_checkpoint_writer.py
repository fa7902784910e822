import subprocess
import sys
import threading

import pytest
import torch

from tests.launch import environment
from vqprior.configs import UserError
from vqprior.runtime import checkpoint
from vqprior.runtime.checkpoint_writer import Writer, snapshot


def tensors(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {"model": {"w": torch.full((3, 2), value), "n": torch.tensor(int(value))}}


@pytest.fixture
def gate(monkeypatch) -> threading.Event:
    """Writes wait in the middle until this is set."""
    event, real = threading.Event(), checkpoint.save_file

    def slow(*arguments: object) -> None:
        assert event.wait(20)
        real(*arguments)

    monkeypatch.setattr(checkpoint, "save_file", slow)
    return event


def test_a_snapshot_shares_no_memory_and_keeps_every_bit():
    held = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    before, copy = held.clone(), snapshot({"model": {"w": held, "alias": held}})["model"]
    held.zero_()
    assert torch.equal(copy["w"], before) and copy["w"].is_contiguous()
    assert copy["w"].data_ptr() != copy["alias"].data_ptr() and not copy["w"].requires_grad


def test_steps_taken_during_a_write_are_not_in_it(tmp_path, gate):
    writer, live = Writer(tmp_path, keep=2), tensors(1)
    writer.save(1, live, {"note": "one"}, 0.5)
    live["model"]["w"].add_(1)  # the loop goes on
    assert checkpoint.newest(tmp_path) is None
    gate.set()
    writer.finish()
    found = checkpoint.newest(tmp_path)
    assert (found.step, found.score, found.meta) == (1, 0.5, {"note": "one"})
    assert torch.equal(found.tensors("model")["w"], torch.full((3, 2), 1.0))


def test_a_save_waits_for_the_one_before(tmp_path, gate):
    writer = Writer(tmp_path, keep=5)
    writer.save(1, tensors(1), {}, None)
    second = threading.Thread(target=writer.save, args=(2, tensors(2), {}, None))
    second.start()
    second.join(0.2)
    assert second.is_alive() and not list(tmp_path.glob("step-????????"))
    gate.set()
    second.join()
    assert (tmp_path / "step-00000001").is_dir()
    writer.finish()
    assert checkpoint.newest(tmp_path).step == 2


def test_old_checkpoints_are_pruned_and_the_best_one_stays(tmp_path):
    writer = Writer(tmp_path, keep=1)
    for step, score in ((1, 0.3), (2, 0.1), (3, 0.2), (4, None)):
        writer.save(step, tensors(step), {}, score)
    writer.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000004"]


@pytest.mark.parametrize("at", ["the next save", "the end"])
def test_a_write_that_failed_is_told_and_the_next_one_is_free_of_it(tmp_path, monkeypatch, at):
    writer = Writer(tmp_path, keep=2)
    writer.save(1, tensors(1), {}, None)
    writer.finish()
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(checkpoint, "save_file", full)
        writer.save(2, tensors(2), {}, None)
        with pytest.raises(UserError, match=r"No space left.* make room"):
            writer.save(3, tensors(3), {}, None) if at == "the next save" else writer.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    writer.save(3, tensors(3), {}, None)
    writer.finish()
    assert checkpoint.newest(tmp_path).step == 3


def test_an_error_of_the_loop_neither_hangs_python_nor_tears_the_write(tmp_path):
    code = f"""
import time, torch
from pathlib import Path
from vqprior.runtime import checkpoint
from vqprior.runtime.checkpoint_writer import Writer

real = checkpoint.save_file
checkpoint.save_file = lambda *arguments: (time.sleep(0.5), real(*arguments))
Writer(Path({str(tmp_path)!r}), keep=2).save(7, {{"model": {{"w": torch.ones(3)}}}}, {{}}, None)
raise RuntimeError("in the loop")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(None), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and "in the loop" in done.stderr
    assert checkpoint.newest(tmp_path).step == 7
