"""Files of numpy that may be damaged, or of another kind than their name says."""

import lzma
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from numpy.lib.format import MAGIC_PREFIX
from numpy.lib.npyio import NpzFile

# what numpy, zipfile and pyarrow raise where a file is damaged, or of another kind
NOT_READ = (ValueError, OSError, LookupError, EOFError, MemoryError, RuntimeError, ArithmeticError)
NOT_READ += (BadZipFile, zlib.error, lzma.LZMAError, TokenError)


def load(file: Path, mmap_mode: Literal["r"] | None = None) -> Any:
    """The array of an .npy, or the arrays of an .npz by name, which `member` reads; nothing is ever executed.

    Raises:
        ValueError: it is neither, or it is the one and is called the other. Of a damaged file, any of
            `NOT_READ`.
    """
    with file.open("rb") as content:
        begins = content.read(6)
    if not begins.startswith((MAGIC_PREFIX, b"PK")):
        found = f"it begins with {begins!r}, which no array of numpy does" if begins else "it is empty"
        raise ValueError(f"{found}; numpy.save and numpy.savez write arrays")
    try:
        found = np.load(file, mmap_mode=mmap_mode, allow_pickle=False)
    except TypeError as error:  # numpy's own, of a header that is none
        raise ValueError(f"its header is damaged: {error}") from error
    if isinstance(found, NpzFile) and file.suffix == ".npy":
        found.close()
        raise ValueError(f"it is an archive, as numpy.savez writes; call it {file.with_suffix('.npz').name}")
    if not isinstance(found, NpzFile) and file.suffix == ".npz":
        raise ValueError(f"it is one array, as numpy.save writes; call it {file.with_suffix('.npy').name}")
    return found


def member(arrays: NpzFile, name: str) -> Any:
    """What an archive has under a name, None where it has nothing.

    Raises:
        Any of `NOT_READ`: it is damaged.
    """
    try:
        return arrays.get(name)
    except TypeError as error:
        raise ValueError(f"the header of {name} is damaged: {error}") from error
