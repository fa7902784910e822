"""Commands in processes of their own, for tests: several of them, in fp64, watched, spoilt or killed at a
chosen instant.

Several commands with the word `then` between them share one start of the processes.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

from tests import forked
from tests.forked import ROOT, environment

LONGEST = 400  # seconds that a command may take


def run_processes(
    arguments: list[object],
    *,
    processes: int = 1,
    env: dict[str, str] | None = None,
    torchrun: tuple[str, ...] = (),
) -> subprocess.CompletedProcess:
    """`vqprior ARGUMENTS` on one process, or on several gloo processes behind torchrun; one thread each."""
    command, variables = command_line(arguments, processes, torchrun), environment(env)
    if processes == 1 and forked.fits(variables):
        return _forked(command, variables)
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=LONGEST)


def _forked(command: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess:
    """A command line of this file by a process that has imported torch, see forked.py."""
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
        call = forked.Call(command[2:], os.getcwd(), variables, out.name, err.name, LONGEST)
        return subprocess.CompletedProcess(command, forked.run(call), out.read(), err.read())


def start_process(
    arguments: list[object], *, processes: int = 1, torchrun: tuple[str, ...] = (), session: bool = False
) -> subprocess.Popen:
    """The same, still running when this returns; in a process group of its own if asked."""
    return subprocess.Popen(
        command_line(arguments, processes, torchrun), env=environment(None), start_new_session=session,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def command_line(arguments: list[object], processes: int = 1, torchrun: tuple[str, ...] = ()) -> list[str]:
    """This file as a program, behind torchrun for several processes."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += [
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            str(processes),
            *torchrun,
        ]
    return [*launcher, str(ROOT / "tests" / "launch.py"), *(str(argument) for argument in arguments)]


def _arm(instant: str) -> None:
    """Die by SIGKILL at an instant: `replace:7` before, `replaced:7` after the seventh file or folder takes
    its name."""
    import signal

    kind, count = instant.split(":")
    real, calls = os.replace, 0

    def replace(*arguments: object, **options: object) -> None:
        nonlocal calls
        calls += 1
        if calls == int(count) and kind == "replace":
            os.kill(os.getpid(), signal.SIGKILL)
        real(*arguments, **options)
        if calls == int(count) and kind == "replaced":
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace


def _stop_at(step: int, stage: str) -> None:
    """Receive a signal in the step with this number of a stage, once or twice."""
    import signal
    import time
    from importlib import import_module

    from vqprior.runtime import interrupt
    from vqprior.runtime.guard import Guard

    package = {"1": "stage1_vqvae", "2": "stage2_prior"}[stage]
    number = int(os.environ.get("TEST_SIGNAL", signal.SIGTERM))

    class Told(Guard):
        def report(self, losses: object) -> object:
            if self.step + 1 == step and os.environ.get("RANK", "0") == os.environ.get("TEST_STOP_RANK", "0"):
                for _ in range(int(os.environ.get("TEST_SIGNAL_TIMES", "1"))):
                    signal.raise_signal(number)
                    while not interrupt.requested():  # two signals in one instant are one
                        time.sleep(0.01)
            return super().report(losses)

    import_module(f"vqprior.{package}.train").Guard = Told


def _spoil(losses: set[int], gradients: set[int]) -> None:
    """In steps with these numbers make the loss, or the gradient, of this process not a number."""
    from accelerate import Accelerator

    from vqprior.runtime.guard import Guard

    real_report, real_backward = Guard.report, Accelerator.backward

    def report(self: Guard, values: object) -> object:
        return real_report(self, values * float("nan") if self.step + 1 in losses else values)

    def backward(self: Accelerator, loss: object) -> None:
        self.calls = getattr(self, "calls", 0) + 1
        real_backward(self, loss * float("nan") if self.calls in gradients else loss)

    Guard.report, Accelerator.backward = report, backward


def _compare_codebooks() -> None:
    """After each update of the codebook, all it consists of must be the same bits on all processes."""
    import hashlib

    from accelerate.utils import gather_object

    from vqprior.runtime.processes import say
    from vqprior.stage1_vqvae.quantizers import Quantizer
    from vqprior.stage1_vqvae.quantizers.codebook import Codebook

    def watched(real: Callable[..., object]) -> Callable[..., object]:
        def update(self: Quantizer, *arguments: object, **options: object) -> object:
            restarted = real(self, *arguments, **options)
            digest = lambda value: hashlib.sha256(value.numpy().tobytes()).hexdigest()
            state = {name: digest(value) for name, value in self.state_dict().items()}
            everywhere = gather_object([state])
            assert all(other == state for other in everywhere), everywhere
            say(f"{len(everywhere)} equal codebooks")
            return restarted

        return update

    for kind in (Quantizer, Codebook):
        kind.update = watched(kind.update)


def _steps(name: str) -> set[int]:
    """Steps that a variable lists, if it is for this process."""
    mine = os.environ.get("RANK", "0") in os.environ.get("TEST_NAN_RANKS", "0 1").split()
    return {int(step) for step in os.environ.get(name, "").split()} if mine else set()


def main() -> int:
    """The commands in `sys.argv`."""
    import torch

    from vqprior import cli

    torch.set_num_threads(1)
    if os.environ.get("TEST_FP64"):
        torch.set_default_dtype(torch.float64)
    if step := os.environ.get("TEST_STOP_AT"):
        _stop_at(int(step), os.environ.get("TEST_STOP_STAGE", "1"))
    if os.environ.get("TEST_NAN_LOSS") or os.environ.get("TEST_NAN_GRADIENT"):
        _spoil(_steps("TEST_NAN_LOSS"), _steps("TEST_NAN_GRADIENT"))
    # so many at once, and more processes have some of few
    if references := os.environ.get("TEST_REFERENCES"):
        from vqprior.evaluation import nearest

        nearest.REFERENCES = int(references)
    if os.environ.get("TEST_CODEBOOKS"):
        _compare_codebooks()
    marker = os.environ.get("TEST_KILL_ONCE")  # by the main process, since it is the one that writes
    armed = os.environ.get("RANK", "0") == "0" and not (marker and Path(marker).exists())
    if armed and (instant := os.environ.get("TEST_KILL_AT")):
        if marker:
            Path(marker).touch()
        _arm(instant)
    code, rest = 0, sys.argv[1:]
    while rest and not code:
        command = list(takewhile(lambda word: word != "then", rest))
        code, rest = cli.main(command), rest[len(command) + 1 :]
    return code


if __name__ == "__main__":
    from vqprior.cli import entry

    entry(main)
