"""Archives of numpy that are written with one part of their largest array in memory at a time."""

import zipfile
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path

import numpy as np


def write_npz(
    path: Path,
    name: str,
    parts: Iterable[np.ndarray],
    count: int,
    others: Mapping[str, np.ndarray],
) -> None:
    """What `numpy.savez(path, **{name: numpy.concatenate(parts)}, **others)` writes.

    Args:
        parts: of the array, each [n, ...]; all of them together have `count` rows.
    """
    parts = iter(parts)
    first = next(parts)
    header = np.lib.format.header_data_from_array_1_0(first) | {"shape": (count, *first.shape[1:])}
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for part in chain([first], parts):
                file.write(part.tobytes())
        for other, array in others.items():
            with archive.open(f"{other}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
