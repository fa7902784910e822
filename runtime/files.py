"""Files that are never half-written: a temporary name, fsync, then `os.replace`."""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqprior.configs.errors import UserError

if TYPE_CHECKING:
    import numpy as np

TEMPORARY = ".tmp"  # what a killed run leaves under this ending is ignored, and replaced by the next write


def refuse_file(path: Path) -> None:
    """Refuse, with a UserError, a path for a folder that is a file, or lies below one."""
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise UserError(f"{place} is a file; give a folder with --out")


def refuse_occupied(path: Path) -> None:
    """Refuse, with a UserError, a path for a new folder where there is something, or the current folder."""
    if path.resolve() == Path.cwd():
        raise UserError(f"--out is the current folder; give one of its own, such as --out {path / 'mine'}")
    if path.is_dir() and any(path.iterdir()):
        raise UserError(f"{path} is not empty; give another folder with --out, or delete this one")
    refuse_file(path)


def sync_file(path: Path) -> None:
    """Return once a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: Path, content: bytes | str | Callable[[Path], None]) -> None:
    """Write a file so that at any instant it is either the old one or the new one, whole.

    `content` is what to write, or a function that writes the file whose name it is given.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    if isinstance(content, str):
        content = content.encode("utf-8", "backslashreplace")  # of names that are no UTF-8
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content)
        sync_file(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # a full disk gets its room back
        raise
    sync_file(path.parent)


def write_json(path: Path, value: Any) -> None:
    """`write_file` for a JSON value."""
    write_file(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value of a file; None where there is none, or it is damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def write_array(path: Path, array: "np.ndarray") -> None:
    """`write_file` for an array, as .npy; numpy's own writing would keep silent about a full disk."""
    import numpy as np  # here: the command line reads a run's settings without it

    buffer = io.BytesIO()
    np.save(buffer, array)
    write_file(path, buffer.getvalue())


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder that appears whole or not at all; `fill` writes its files into the folder it is
    given."""
    temporary = path.with_name(path.name + TEMPORARY)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        fill(temporary)
        move_folder(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def move_folder(source: Path, path: Path) -> None:
    """Give a finished folder its name, in place of one that may have it."""
    sync_file(source)
    old = path.with_name(path.name + ".old" + TEMPORARY)
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(path, old)
    os.replace(source, path)
    shutil.rmtree(old, ignore_errors=True)
    sync_file(path.parent)


def remove_folder(path: Path) -> None:
    """Delete a folder so that at any instant its name has either all of it or nothing."""
    temporary = path.with_name(path.name + TEMPORARY)
    shutil.rmtree(temporary, ignore_errors=True)
    os.replace(path, temporary)
    shutil.rmtree(temporary)


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
