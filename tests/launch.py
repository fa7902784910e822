"""Commands in processes of their own, for tests: several of them, in fp64, or killed at a chosen instant."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run_processes(
    arguments: list[object], *, processes: int = 1, env: dict[str, str] | None = None, torchrun: tuple[str, ...] = ()
) -> subprocess.CompletedProcess:
    """`vqprior ARGUMENTS` on one process, or on several gloo processes behind torchrun; one thread each."""
    command = command_line(arguments, processes, torchrun)
    return subprocess.run(command, env=environment(env), capture_output=True, text=True, timeout=400)


def start_process(arguments: list[object], *, processes: int = 1, session: bool = False) -> subprocess.Popen:
    """The same, still running when this returns; in a process group of its own if asked."""
    return subprocess.Popen(
        command_line(arguments, processes), env=environment(None), start_new_session=session,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def command_line(arguments: list[object], processes: int = 1, torchrun: tuple[str, ...] = ()) -> list[str]:
    """This file as a program, behind torchrun for several processes."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), *torchrun]
    return [*launcher, str(ROOT / "tests" / "launch.py"), *(str(argument) for argument in arguments)]


def environment(extra: dict[str, str] | None) -> dict[str, str]:
    """One thread a process, and the package of this checkout."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **(extra or {})}


def _arm(instant: str) -> None:
    """Die by SIGKILL at an instant: `replace:7` before, `replaced:7` after the seventh file or folder takes its name."""
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
    """Receive a signal in the step with this number of a stage."""
    import signal
    from importlib import import_module

    from runtime.launch import Guard

    package = {"1": "stage1_vqvae", "2": "stage2_prior"}[stage]
    number = int(os.environ.get("TEST_SIGNAL", signal.SIGTERM))

    class Told(Guard):
        def judge(self, current: int, *arguments: object) -> tuple[bool, int]:
            if current == step and os.environ.get("RANK", "0") == os.environ.get("TEST_STOP_RANK", "0"):
                os.kill(os.getpid(), number)
            return super().judge(current, *arguments)

    import_module(f"{package}.train").Guard = Told


def _main() -> int:
    import torch

    from vqprior.cli import main

    torch.set_num_threads(1)
    if os.environ.get("TEST_FP64"):
        torch.set_default_dtype(torch.float64)
    if step := os.environ.get("TEST_STOP_AT"):
        _stop_at(int(step), os.environ.get("TEST_STOP_STAGE", "1"))
    marker = os.environ.get("TEST_KILL_ONCE")  # by the main process, since it is the one that writes
    armed = os.environ.get("RANK", "0") == "0" and not (marker and Path(marker).exists())
    if armed and (instant := os.environ.get("TEST_KILL_AT")):
        if marker:
            Path(marker).touch()
        _arm(instant)
    return main()


if __name__ == "__main__":
    sys.exit(_main())
