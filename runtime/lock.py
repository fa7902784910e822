"""One process at a time writes a run directory; a crash leaves no lock behind."""

import fcntl
import os
import socket
import time
from pathlib import Path

from vqprior.configs.errors import UserError

LOOK = 0.1  # seconds after which whoever only looked, as `is_locked` does, has let go again

_held: dict[Path, int] = {}


def lock(folder: Path) -> None:
    """Hold the folder until this process ends, however it ends: the system itself lets go of the lock.

    Raises:
        UserError: another process holds it.
    """
    path = (folder / ".lock").resolve()
    if path in _held:
        return
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _take(handle)
    except BlockingIOError as error:
        holder = os.read(handle, 200).decode(errors="replace") or "unknown"
        os.close(handle)
        raise UserError(
            f"another process ({holder}) works on {folder}; wait for it, end it (a torchrun that is killed "
            "leaves its processes running), or give another folder with --out"
        ) from error
    except OSError as error:
        print(
            f"vqprior: {folder} lies on a file system without locks ({error.strerror}); see that only one "
            "run uses it"
        )
    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
    _held[path] = handle


def _take(handle: int) -> None:
    """Take the lock of an open file; raises BlockingIOError where another process keeps it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(LOOK)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_locked(folder: Path) -> bool:
    """Whether a process holds the folder; writes nothing. False where the file system has no locks."""
    try:
        handle = os.open(folder / ".lock", os.O_RDONLY)
    except OSError:  # nobody ever held it, or it is not ours to read
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def release(folder: Path) -> None:
    """Let go of a folder, if this process holds it."""
    handle = _held.pop((folder / ".lock").resolve(), None)
    if handle is not None:
        os.close(handle)


def release_all() -> None:
    """Let go of every lock: for several commands in one process, and for the copies that a forked process
    has."""
    for handle in _held.values():
        os.close(handle)
    _held.clear()
