"""What is read of a step, and when."""

from types import SimpleNamespace

import pytest
import torch

from vqprior.configs import UserError
from vqprior.runtime import guard as module
from vqprior.runtime import interrupt
from vqprior.runtime.guard import Guard

NAN = float("nan")


class Event:
    """An event of a device that reaches it when somebody waits."""

    waited = 0

    def __init__(self, device: torch.device):
        pass

    def record(self, stream: object) -> None:
        pass

    def synchronize(self) -> None:
        Event.waited += 1


@pytest.fixture
def ahead(monkeypatch) -> None:
    """The CPU is treated like a CUDA device."""
    monkeypatch.setattr(module, "runs_ahead", lambda device: True)
    monkeypatch.setattr(torch, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "a stream")
    Event.waited = 0


def guard(start: int = 0) -> Guard:
    writer = SimpleNamespace(finish=lambda: None, folder=SimpleNamespace(glob=lambda pattern: []))
    return Guard(SimpleNamespace(scaler=None), writer, start)


def step(watch: Guard, loss: float, norm: float = 1.0, *, everything: bool = False) -> int:
    reports = watch.report(torch.tensor([loss]))
    watch.note(watch.judge(reports, torch.tensor(norm)))
    return watch.heed(everything=everything)


@pytest.mark.parametrize(("loss", "norm"), [(NAN, 1.0), (1.0, float("inf")), (NAN, NAN)])
def test_a_step_is_unsound_if_its_loss_or_its_gradient_is_not_finite(loss, norm):
    watch = guard()
    verdict = watch.judge(watch.report(torch.tensor([1.0, loss])), torch.tensor(norm))
    assert verdict.tolist() == [1.0] and watch.decide(verdict) == (False, None)
    sound = watch.judge(watch.report(torch.tensor([1.0])), torch.tensor(1.0))
    assert sound.tolist() == [0.0] and watch.decide(sound) == (True, None)


def test_on_a_cpu_a_step_is_counted_at_once():
    watch = guard()
    step(watch, NAN)
    assert watch.state() == {"skipped": 1, "in_a_row": 1}
    step(watch, 1.0)
    assert watch.state() == {"skipped": 1, "in_a_row": 0}


def test_where_the_host_runs_ahead_a_step_is_counted_in_the_next_one_with_one_wait(ahead):
    watch = guard()
    step(watch, NAN)
    assert (watch.state()["skipped"], Event.waited) == (0, 0)
    step(watch, NAN)
    assert (watch.state()["skipped"], Event.waited) == (1, 1)
    step(watch, 1.0, everything=True)  # before a checkpoint all is read
    assert (watch.state(), Event.waited) == ({"skipped": 2, "in_a_row": 0}, 3)


@pytest.mark.parametrize("runs_ahead", [False, True])
def test_ten_in_a_row_end_the_run_and_name_the_tenth(runs_ahead, request):
    if runs_ahead:
        request.getfixturevalue("ahead")
    watch = guard(start=100)
    for _ in range(9):
        step(watch, NAN)
    with pytest.raises(UserError, match="10 steps in a row, up to step 110; none of them was applied"):
        step(watch, NAN, everything=True)


def test_a_signal_is_heeded_in_its_step(monkeypatch, ahead):
    watch = guard()
    assert step(watch, 1.0) == 0
    monkeypatch.setattr(interrupt, "_received", 15)
    assert step(watch, 1.0) == 15


@pytest.mark.parametrize("runs_ahead", [False, True])
def test_a_signal_to_one_of_several_processes_stops_all_within_two_steps(monkeypatch, runs_ahead, request):
    if runs_ahead:
        request.getfixturevalue("ahead")
    monkeypatch.setattr(module, "share_of_process", lambda: SimpleNamespace(processes=2))
    watch, losses = guard(), torch.tensor([1.0])
    monkeypatch.setattr(interrupt, "_received", 10)
    theirs = watch.report(losses)
    monkeypatch.setattr(interrupt, "_received", 0)
    reports = watch.report(losses) + theirs  # this process was told nothing
    watch.note(watch.judge(reports, torch.tensor(1.0)))
    heeded = [watch.heed(everything=False)]
    watch.note(watch.judge(watch.report(losses), torch.tensor(1.0)))
    heeded.append(watch.heed(everything=False))
    assert heeded == ([0, 10] if runs_ahead else [10, 0])
