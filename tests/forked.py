"""Commands in processes of their own that need not import torch first: forks of one that has.

`python -m tests.forked` reads a `Call` a line, forks for it, and answers with the exit code of the fork. It
has one thread when it forks, and nothing that a command would set. All forks have its hash seed.
"""

import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy

IMPORTED = (
    *("torch._dynamo", "accelerate", "torchvision", "torch.utils.tensorboard"),
    *("vqprior.cli", "vqprior.pipeline", "vqprior.stage1_vqvae.train", "vqprior.stage2_prior.train"),
    *("vqprior.sampling.generate", "vqprior.evaluation.evaluate", "tests.launch"),
)
ROOT = Path(__file__).parent.parent
TOO_LONG = "too long"
OF_THE_CALL = ("TEST_", "PYTEST_CURRENT_TEST")  # beginnings of variables that nothing reads on import


def environment(extra: dict[str, str] | None) -> dict[str, str]:
    """The variables of a command: one thread a process, and the package of this checkout."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **(extra or {})}


BEGAN_WITH = environment(None)


class Call(NamedTuple):
    """What a fork is to do."""

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    stdout: str
    stderr: str
    seconds: float


def fits(environment: dict[str, str]) -> bool:
    """Whether a fork may stand for a process that begins with these variables."""
    return sys.platform == "linux" and _lasting(environment) == _lasting(BEGAN_WITH)


def run(call: Call) -> int:
    """The exit code, or minus the number of the signal that ended it.

    Raises:
        subprocess.TimeoutExpired: it was killed, since its time was over.
    """
    helper = _helper()
    try:
        helper.stdin.write(json.dumps(call) + "\n")
        helper.stdin.flush()
        answer = helper.stdout.readline().strip()
    except BrokenPipeError:
        answer = ""
    if answer == TOO_LONG:
        raise subprocess.TimeoutExpired(call.arguments, call.seconds)
    if not answer:
        _helper.cache_clear()  # the next call starts another
        raise RuntimeError(f"the process that forks ended with exit code {helper.wait(10)}")
    return int(answer)


def _lasting(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(OF_THE_CALL)}


@cache
def _helper() -> subprocess.Popen:
    """The process that forks; it ends with this one, whose end closes its input."""
    command = [sys.executable, "-m", "tests.forked"]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    return subprocess.Popen(command, env=BEGAN_WITH, cwd=ROOT, text=True, **pipes)


def _serve() -> Call | None:
    """In a fork, what it is to do; None at the end of the input, in the process that was started."""
    for line in sys.stdin:
        call = Call(*json.loads(line))
        if (child := os.fork()) == 0:
            return call
        print(_ended(child, call.seconds), flush=True)
    return None


def _ended(child: int, seconds: float) -> int | str:
    """What became of a fork, which is killed when its time is over."""
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return TOO_LONG
        time.sleep(0.01)


def _become(call: Call) -> None:
    """Take the folder, the variables, the arguments and the files of a call."""
    os.chdir(call.folder)
    os.environ.clear()
    os.environ.update(call.environment)
    sys.argv = ["launch.py", *call.arguments]
    numpy.random.seed()  # as each process has its own
    random.seed()
    modes = {0: (os.devnull, os.O_RDONLY), 1: (call.stdout, os.O_WRONLY), 2: (call.stderr, os.O_WRONLY)}
    for number, (path, mode) in modes.items():
        opened = os.open(path, mode)
        os.dup2(opened, number)
        os.close(opened)


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    if (call := _serve()) is not None:
        _become(call)
        from tests.launch import main
        from vqprior.cli import entry

        entry(main)
