"""Archives of numpy that are written with one part of their large arrays in memory at a time."""

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import numpy as np


def write_npz(
    path: Path,
    arrays: Mapping[str, Iterable[np.ndarray]],
    count: int,
    others: Mapping[str, np.ndarray],
) -> None:
    """What `numpy.savez(path, **others)` writes with each of `arrays`, joined, before the others.

    Args:
        arrays: by name the parts of each, [n, ...]; all parts together have `count` rows.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, parts in arrays.items():
            _write_joined(archive, name, iter(parts), count)
        for other, array in others.items():
            with archive.open(f"{other}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _write_joined(archive: zipfile.ZipFile, name: str, parts: Iterator[np.ndarray], count: int) -> None:
    first = next(parts)
    header = np.lib.format.header_data_from_array_1_0(first) | {"shape": (count, *first.shape[1:])}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in chain([first], parts):
            file.write(part.tobytes())
