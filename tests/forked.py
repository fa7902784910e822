"""Commands in processes of their own that need not import torch first: forks of one that has.

`python -m tests.forked` reads a `Call` a line, forks for it, and answers with the exit code of the fork. It
has one thread when it forks, and nothing that a command would set.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from functools import cache
from typing import NamedTuple

IMPORTED = (
    *("torch._dynamo", "accelerate", "torchvision", "torch.utils.tensorboard"),
    *("vqprior.cli", "vqprior.pipeline", "vqprior.stage1_vqvae.train", "vqprior.stage2_prior.train"),
    *("vqprior.sampling.generate", "vqprior.evaluation.evaluate", "tests.launch"),
)
OF_THE_CALL = ("TEST_", "PYTEST_CURRENT_TEST")  # beginnings of variables that nothing reads on import


class Call(NamedTuple):
    """What a fork is to do."""

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    stdout: str
    stderr: str
    seconds: float


def fits(environment: dict[str, str]) -> bool:
    """Whether a process that began with this one's variables may stand for one that begins with these."""
    return hasattr(os, "fork") and _lasting(environment) == _lasting(_began_with())


def run(call: Call) -> int:
    """The exit code; less the number of the signal that ended it, as `subprocess` has it."""
    helper = _helper()
    helper.stdin.write(json.dumps(call) + "\n")
    helper.stdin.flush()
    return int(helper.stdout.readline())


def _lasting(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(OF_THE_CALL)}


@cache
def _began_with() -> dict[str, str]:
    from tests.launch import environment

    return environment(None)


@cache
def _helper() -> subprocess.Popen:
    """The process that forks; it ends with this one, whose end closes its input."""
    command = [sys.executable, "-m", "tests.forked"]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    return subprocess.Popen(command, env=_began_with(), cwd=_began_with()["PYTHONPATH"], text=True, **pipes)


def _serve() -> Call | None:
    """In a fork, what it is to do; None at the end of the input, in the process that was started."""
    for line in sys.stdin:
        call = Call(*json.loads(line))
        if (child := os.fork()) == 0:
            return call
        print(_ended(child, call.seconds), flush=True)
    return None


def _ended(child: int, seconds: float) -> int:
    """The exit code of a fork, which is killed when its time is over."""
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)


def _become(call: Call) -> None:
    """Take the folder, the variables, the arguments and the files of a call."""
    os.chdir(call.folder)
    os.environ.clear()
    os.environ.update(call.environment)
    sys.argv = ["launch.py", *call.arguments]
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
