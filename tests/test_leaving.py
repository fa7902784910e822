"""The way out of several processes: one that fails alone ends the others in seconds, and harms nothing on
disk."""

import os
import re
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY, write_pictures
from tests.launch import run_processes, start_process
from vqprior import cli
from vqprior.runtime import checkpoint, checkpoint_writer, leaving, processes

SOON = 60  # seconds, where a process that waited for the others would wait for hours


class Left(Exception):
    """The process would be gone now."""

    def __init__(self, code: int):
        self.code = code


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """This is one of two processes: what it does on its way out, in order."""
    done: list[str] = []
    note = lambda name: lambda *arguments: done.append(name)

    def gone(code: int) -> None:
        raise Left(code)

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", note("group taken down"))
    monkeypatch.setattr(checkpoint_writer, "finish", note("checkpoint written"))
    monkeypatch.setattr(os, "_exit", gone)
    return done


def way_out(call) -> int:
    """The code that one of several processes leaves with."""
    with pytest.raises(Left) as left:
        cli.entry(call)
    return left.value.code


def fail(error: Exception):
    """A command that ends in an error."""

    def command() -> int:
        raise error

    return command


def test_after_a_clean_end_the_group_is_taken_down_and_after_a_failure_it_is_left_alone(calls, capsys):
    assert way_out(lambda: 0) == 0
    assert calls == ["checkpoint written", "group taken down"]
    for command, code in (
        (lambda: 2, 2),
        (lambda: 143, 143),
        (fail(ZeroDivisionError("a fault of ours")), 1),
    ):
        calls.clear()
        assert way_out(command) == code
        assert calls == ["checkpoint written"]
    printed = capsys.readouterr().err
    assert printed.count("Traceback") == 1 and "a fault of ours" in printed


@pytest.mark.parametrize(
    ("words", "lost"),
    [
        (
            "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer "
            "[127.0.0.1]:31415",
            True,
        ),
        (
            "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Read error [127.0.0.1]:2718: Connection "
            "reset by peer",
            True,
        ),
        (
            "NCCL error in: ProcessGroupNCCL.cpp:2251, remote process exited or there was a network error",
            True,
        ),
        ("mat1 and mat2 shapes cannot be multiplied", False),
        ("Connection reset by peer", False),  # not from a collective
    ],
)
def test_the_end_of_another_process_is_one_line_and_no_traceback(words, lost, calls, capsys):
    assert way_out(fail(RuntimeError(words))) == 1
    printed = capsys.readouterr().err
    assert ("Traceback" not in printed) is lost and calls == ["checkpoint written"]
    first = "vqprior: process 1 ends because another one did; see what that one said\n"
    assert not lost or printed == f"{first}  (if none did, the network failed: {words})\n"


def test_a_single_process_ends_as_python_does(monkeypatch):
    monkeypatch.setattr(os, "_exit", fail(AssertionError("left hard")))
    for code in (0, 2):
        with pytest.raises(SystemExit) as end:
            cli.entry(lambda code=code: code)
        assert end.value.code == code
    with pytest.raises(ZeroDivisionError):
        cli.entry(fail(ZeroDivisionError()))


def test_what_the_gpu_has_still_to_send_is_waited_for_but_not_for_ever(calls, monkeypatch):
    """The message that all fail with is on its way to the others when the main process leaves; or it never
    arrives."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(leaving, "PATIENCE", 0.2)
    processes.state()
    for seconds, arrives in ((0.05, True), (2.0, False)):
        calls.clear()
        monkeypatch.setattr(
            torch.cuda, "synchronize", lambda _, seconds=seconds: (time.sleep(seconds), calls.append("sent"))
        )
        assert way_out(lambda: 2) == 2
        assert ("sent" in calls) is arrives


def test_the_exit_hook_of_a_script_leaves_the_group_alone_after_an_error(calls, monkeypatch):
    monkeypatch.setattr(sys, "last_value", ValueError(), raising=False)
    processes._leave()
    assert not calls
    monkeypatch.delattr(sys, "last_value")
    for code in (2, 0):  # of `cli.main`, which a script may leave with by itself
        processes.note_end(code)
        processes._leave()
        assert calls == ([] if code else ["group taken down"])


@pytest.mark.slow
def test_a_damaged_picture_that_one_of_two_processes_sees_ends_both(tmp_path):
    """It is damaged while they train, and decoded by the one whose share of a batch it is in."""
    pictures, run = write_pictures(tmp_path / "pictures", 150), tmp_path / "run"
    command = [
        "train-vqvae",
        "folder",
        *TINY,
        "--data.root",
        pictures,
        "--data.memory_gb",
        0,
        "--data.workers",
        1,
    ]
    command += ["--stage1.steps", 100000, "--stage1.eval_every", 100000, "--out", run]
    process = start_process(command, processes=2)
    wait_for_checkpoint(run, process)
    damaged = in_training(run)
    (pictures / damaged).write_bytes(b"no picture")
    begin = time.monotonic()
    printed, _ = process.communicate(timeout=SOON)
    assert time.monotonic() - begin < SOON and process.returncode != 0
    messages = [line for line in printed.splitlines() if "vqprior: " in line]
    assert sum(Path(damaged).name in line for line in messages) == 1, printed
    assert sum("ends because another one did" in line for line in messages) == 1, printed
    assert sorted(re.findall(r"exitcode +: (-?\d+)", printed)) == ["1", "2"], printed
    assert printed.count("\nTraceback") == 1  # torchrun's own
    assert checkpoint.newest(run / "stage1", warn=pytest.fail).tensors("model")


def in_training(run: Path) -> str:
    """The name of a picture of the training split."""
    from vqprior.runtime.data import load
    from vqprior.runtime.run_dir import RunDir

    return load(RunDir(run).config().data, run=run).train.names(torch.tensor([0]))[0]


def wait_for_checkpoint(run: Path, process) -> None:
    """Wait until training is under way, and no longer than its processes run."""
    deadline = time.monotonic() + 120
    while not (run / "stage1" / "step-00000004").exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


@pytest.mark.slow
def test_two_processes_that_are_done_leave_with_0(tmp_path):
    pictures = write_pictures(tmp_path / "pictures")
    for _ in range(3):  # Python's own end was not always survived
        done = run_processes(
            ["train-vqvae", "folder", *TINY, "--data.root", pictures, "--out", tmp_path / "run"], processes=2
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert "terminate called" not in done.stderr and "Grad strides" not in done.stderr
