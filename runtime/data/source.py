"""What every source of pictures gives: the pictures of train and test, one at a time, with labels and stable names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Pictures:
    """The pictures of one split as the source holds them, undecoded."""

    read: Callable[[int], Image.Image]  # the picture with this index; picklable, since worker processes call it
    keys: Sequence[str]  # a name for each, on which the split into train and validation depends
    labels: np.ndarray | None  # [N] int64, or None without classes

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Source:
    """A source of pictures; `test` is None where it has no test pictures of its own."""

    train: Pictures
    test: Pictures | None
    label_names: tuple[str, ...]  # empty without classes


@dataclass(frozen=True)
class ArrayReader:
    """Reads pictures from an array [N, H, W] or [N, H, W, 3] of uint8."""

    array: np.ndarray

    def __call__(self, index: int) -> Image.Image:
        return Image.fromarray(self.array[index])


def from_arrays(images: np.ndarray, labels: np.ndarray) -> Pictures:
    """Pictures held in an array; their names are their places in it."""
    return Pictures(ArrayReader(images), [str(i) for i in range(len(images))], np.asarray(labels, dtype=np.int64))
