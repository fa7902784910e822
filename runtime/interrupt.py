"""Being told to stop: finish the step, write a checkpoint, and leave with a documented exit code.

SIGTERM and SIGUSR1 are what SLURM and cloud machines send before they take a machine back; Ctrl-C is SIGINT.
The handler only notes the signal; the loops ask `requested()` once a step and agree over all processes on the
step to stop at. A second Ctrl-C stops at once: files on disk are whole at any instant.

Python lets only the main thread handle signals: a command in another thread leaves them to that one.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .lock import release_all

HANDLED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_received = 0


class Interrupted(Exception):
    """The command stopped as it was told to; its work is on disk, and the same command goes on.

    Args:
        number: of the signal, on whichever process received it.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.code = 128 + number


def _note(number: int, _frame: FrameType | None) -> None:
    global _received
    if _received == signal.SIGINT == number:
        raise KeyboardInterrupt
    _received = number


@contextmanager
def heeded() -> Iterator[None]:
    """Inside, signals are noted and the loops act on them; outside, they end the process at once.

    In a thread other than the main one nothing changes.
    """
    global _received
    try:
        before = {number: signal.signal(number, _note) for number in HANDLED}
    except ValueError:  # not the main thread of the main interpreter
        before = {}
    try:
        yield
    except Exception:
        if before and "TORCHELASTIC_RUN_ID" in os.environ:
            # torchrun sends SIGTERM to all others once one has left: it must not change the code that they
            # leave with
            before[signal.SIGTERM] = signal.SIG_IGN
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if before:
            _received = 0  # or a later command in this Python would take it for its own


def requested() -> int:
    """The signal received by this process, 0 for none."""
    return _received


def ignore_in_worker(_worker: int) -> None:
    """In a process that decodes pictures: signals to the whole group reach it too, but only its parent
    decides."""
    for number in HANDLED:
        signal.signal(number, signal.SIG_IGN)
    release_all()  # of the fork's copies: a lock must end with the process that took it
