"""Prepared pictures on disk, so that the next command on the same data decodes none.

    CACHE/CACHEDIR.TAG
    CACHE/train-0123456789abcdef.pixels    uint8 [N, C, H + m, W + m], a hole where none is prepared
    CACHE/train-0123456789abcdef.sums      uint32 [N], the CRC of each picture's pixels, else 0

The name holds a digest of the transform and of the content of every picture, so that no other pictures can be
meant. A picture counts only with its sum: whatever a kill or a full disk left half-written is prepared anew.
Processes share the files without a lock, since all of them write the same bytes.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vqprior.configs.schema import Data

from ..files import write_file

RECIPE = 1  # of `prepare`: pictures that another one made are not used
TAG = "Signature: 8a477f597d28d172789f06886806bc55\n"
TAG += "# Prepared pictures of vqprior; it can be deleted at any time.\n"


@dataclass(frozen=True)
class Prepared:
    """The prepared pictures of one split; picklable, each process opens the files itself."""

    stem: Path
    count: int
    shape: tuple[int, int, int]  # of a picture, [C, H + m, W + m]

    @classmethod
    def of(cls, folder: Path, split: str, data: Data, digests: Sequence[str]) -> "Prepared":
        """Those of a split, made where there are none.

        Raises:
            OSError: the folder cannot be written.
        """
        made_by: list[Any] = [
            RECIPE,
            data.size,
            data.channels,
            data.crop,
            data.margin,
            data.range,
            list(digests),
        ]
        digest = hashlib.sha256(json.dumps(made_by).encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "CACHEDIR.TAG").is_file():
            write_file(folder / "CACHEDIR.TAG", TAG)
        shape = (data.channels, *(pixels + data.margin for pixels in data.size))
        prepared = cls(folder / f"{split}-{digest}", len(digests), shape)
        for handle, size in ((prepared._pixels, prepared._bytes), (prepared._sums, 4)):
            if os.fstat(handle).st_size != prepared.count * size:
                os.truncate(handle, prepared.count * size)
        return prepared

    def __reduce__(self) -> tuple[Any, ...]:
        return Prepared, (self.stem, self.count, self.shape)  # without the handles

    @property
    def _bytes(self) -> int:
        return int(np.prod(self.shape))

    @cached_property
    def _pixels(self) -> int:
        return os.open(self.stem.with_suffix(".pixels"), os.O_RDWR | os.O_CREAT, 0o644)

    @cached_property
    def _sums(self) -> int:
        return os.open(self.stem.with_suffix(".sums"), os.O_RDWR | os.O_CREAT, 0o644)

    def delete(self) -> None:
        """Forget all of them."""
        for suffix in (".pixels", ".sums"):
            self.stem.with_suffix(suffix).unlink(missing_ok=True)

    def get(self, index: int) -> np.ndarray | None:
        """A prepared picture uint8 [C, H + m, W + m]; None where it is not there, whole."""
        expected = int.from_bytes(os.pread(self._sums, 4, 4 * index), "little")
        if not expected:
            return None
        pixels = os.pread(self._pixels, self._bytes, self._bytes * index)
        if len(pixels) != self._bytes or _sum(pixels) != expected:
            return None
        return np.frombuffer(pixels, dtype=np.uint8).reshape(self.shape)

    def put(self, index: int, picture: np.ndarray) -> None:
        """Keep a picture; its sum is written last. A full disk is no error here: the picture is prepared
        again."""
        pixels = np.ascontiguousarray(picture).tobytes()
        try:
            if os.pwrite(self._pixels, pixels, self._bytes * index) == len(pixels):
                os.pwrite(self._sums, _sum(pixels).to_bytes(4, "little"), 4 * index)
        except OSError:
            return


def _sum(pixels: bytes) -> int:
    """A sum that is never 0."""
    return zlib.crc32(pixels) or 1
