"""What every source of pictures gives: the pictures of each split, with labels and stable names."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol
from unicodedata import category

import numpy as np

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data

Content = bytes | np.ndarray
"""A picture as it is stored: an encoded file, or uint8 [H, W] or [H, W, C]."""


SPLITS = ("train", "validation", "test")


class Reader(Protocol):
    """Where pictures are stored; picklable, since worker processes use it."""

    def content(self, index: int) -> Content:
        """The picture with this index, not decoded.

        Raises:
            OSError: it is not there, or the disk does not give it.
        """

    def where(self, index: int) -> str:
        """The place of a picture in words, for messages: its file, or its row and file."""

    def stamp(self, index: int) -> tuple[int, int]:
        """What changes where the picture does, without reading it: a size in bytes, and a time in ns or 0.

        Raises:
            OSError: it is not there.
        """


@dataclass(frozen=True)
class Pictures:
    """The pictures of one split as the source holds them, undecoded."""

    reader: Reader
    keys: Sequence[str]  # a name for each, on which the split into train and validation depends
    labels: np.ndarray | None  # [N] int64, or None without classes

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Source:
    """A source of pictures; `validation` and `test` are None where it has none of its own."""

    train: Pictures
    test: Pictures | None
    label_names: tuple[str, ...]  # empty without classes
    validation: Pictures | None = None
    # what was seen and how it was understood, in words: "sub-folders train, test; a folder a class"
    layout: str = ""
    # files that are no pictures, by kind: {"ending .txt": 3}
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ArrayReader:
    """Pictures in an array [N, H, W] or [N, H, W, 3] of uint8."""

    array: np.ndarray
    name: str = "the array"

    def content(self, index: int) -> np.ndarray:
        return self.array[index]

    def where(self, index: int) -> str:
        return f"picture {index} of {self.name}"

    def stamp(self, index: int) -> tuple[int, int]:
        return self.array[index].nbytes, 0


def from_arrays(images: np.ndarray, labels: np.ndarray) -> Pictures:
    """Pictures held in an array; their names are their places in it."""
    return Pictures(
        ArrayReader(images), [str(i) for i in range(len(images))], np.asarray(labels, dtype=np.int64)
    )


def explicit_roots(data: Data) -> dict[str, str]:
    """The roots given for single splits, by split; {} where none is, and data.root says where the data lie.

    Raises:
        UserError: the settings contradict one another.
    """
    given = {"train": data.train_root, "validation": data.validation_root, "test": data.test_root}
    roots = {split: root for split, root in given.items() if root}
    if not roots:
        return {}
    named = ", ".join(f"data.{split}_root" for split in roots)
    if data.source not in ("folder", "parquet"):
        raise UserError(
            f"{named} is set, and data.source {data.source} has splits of its own: leave it out, "
            "or take --data.source folder or parquet"
        )
    if data.table:
        raise UserError(
            f"both data.table and {named} are set: the table has a column split for that; leave one out"
        )
    if "train" not in roots:
        raise UserError(
            f"{named} is set without data.train_root: say where to learn from, --data.train_root FOLDER"
        )
    return roots


def printable(name: str) -> str:
    """A file name as text that can be printed and kept; bytes that are no UTF-8 become \\x.. ."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def one_line(name: str) -> str:
    """A name without what would end a line, part it or move a cursor: that becomes \\n, \\t, \\x1b."""
    return "".join(repr(sign)[1:-1] if category(sign) in ("Cc", "Zl", "Zp") else sign for sign in name)


def counted(number: int, thing: str) -> str:
    """`1 picture`, `2,000 pictures`, `2 classes`."""
    plural = f"{thing}es" if thing.endswith("s") else f"{thing}s"
    return f"{number:,} {thing if number == 1 else plural}"


def in_words(names: Sequence[str], count: int = 5) -> str:
    """The first names of many, as text."""
    rest = f" and {len(names) - count:,} more" if len(names) > count else ""
    return ", ".join(map(one_line, names[:count])) + rest
