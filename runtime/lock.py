"""One process at a time writes a run directory; a crash leaves no lock behind."""

import fcntl
import os
import socket
from pathlib import Path

from vqprior.configs.errors import UserError

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
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(handle, 200).decode(errors="replace") or "unknown"
        os.close(handle)
        raise UserError(
            f"another process ({holder}) works on {folder}; wait for it, or give another folder with --out"
        ) from error
    except OSError as error:
        print(
            f"vqprior: {folder} lies on a file system without locks ({error.strerror}); see that only one "
            "run uses it"
        )
    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
    _held[path] = handle


def release_all() -> None:
    """Let go of every lock: for several commands in one process, and for the copies that a forked process
    has."""
    for handle in _held.values():
        os.close(handle)
    _held.clear()
