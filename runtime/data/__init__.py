"""Data sets: from the name of a source to the three splits, decoded to uint8.

train          what the networks learn from
validation     cut from train by a hash of each picture's name; chooses checkpoints and settings
test           only for figures that are reported
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data

from ..randomness import share_of
from .decode import Unreadable, decode
from .source import Pictures, Source
from .transform import central, prepare

MODULES = {"mnist5k": "mnist5k", "folder": "folder", "parquet": "parquet"}  # all others are torchvision's
SPLITS = ("train", "validation", "test")


@cache
def _decoders(workers: int) -> ThreadPoolExecutor:
    """Threads that decode pictures; Pillow lets them run side by side."""
    return ThreadPoolExecutor(max(1, min(workers, os.cpu_count() or 1)))


@dataclass
class Split:
    """Some of a source's pictures, decoded: held in memory, or read as they are asked for."""

    name: str
    data: Data
    pictures: Pictures
    indices: np.ndarray  # [N] int64 into the pictures
    held: Tensor | None = field(default=None, repr=False)  # [N, C, H + m, W + m] uint8

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> Tensor | None:
        """[N] int64, or None without classes."""
        return None if self.pictures.labels is None else torch.from_numpy(self.pictures.labels[self.indices])

    def read(self, index: int) -> np.ndarray:
        """Decode one picture: uint8 [C, H + m, W + m]."""
        at, reader = int(self.indices[index]), self.pictures.reader
        where = reader.where(at)
        try:
            content = reader.content(at)
        except OSError as error:
            raise Unreadable(where, error.strerror or str(error)) from error
        return prepare(decode(content, where), self.data)

    def canvas(self, indices: Tensor) -> Tensor:
        """Pictures [n, C, H + m, W + m] uint8, with the margin from which training takes its windows."""
        if self.held is not None:
            return self.held.index_select(0, indices)  # several times as fast as held[indices]
        return torch.from_numpy(np.stack([*_decoders(self.data.workers).map(self.read, indices.tolist())]))

    def images(self, indices: Tensor) -> Tensor:
        """Pictures [n, C, H, W] uint8 as evaluation, encoding and figures see them."""
        return central(self.canvas(indices), self.data)

    def hold(self, quiet: bool = True) -> None:
        """Decode all pictures and keep them."""
        pixels = _decoders(self.data.workers).map(self.read, range(len(self)))
        bar = tqdm(pixels, desc=f"decode {self.name}", total=len(self), disable=quiet or len(self) < 5000, leave=False)
        held = torch.empty(len(self), *self.read(0).shape, dtype=torch.uint8)
        for index, picture in enumerate(bar):
            held[index] = torch.from_numpy(picture.copy())
        self.held = held


@dataclass(frozen=True)
class DataSet:
    """The three splits and what the classes are called."""

    train: Split
    validation: Split
    test: Split
    label_names: tuple[str, ...]  # empty without classes
    fingerprint: str  # of names, labels and a sample of the pixels

    def split(self, name: str) -> Split:
        """A split by its name."""
        return getattr(self, name)


def load(data: Data, *, quiet: bool = True) -> DataSet:
    """The data set that the configuration names.

    Raises:
        UserError: it is not there, cannot be read, or is too small to split.
    """
    source: Source = import_module(f"{__name__}.{MODULES.get(data.source, 'torchvision_sets')}").load(data)
    train, test = source.train, source.test
    shares = np.array([share_of(key) for key in train.keys])
    test_share = data.test if test is None else 0.0
    validation = (shares >= test_share) & (shares < test_share + data.validation)
    parts = {
        "train": (train, np.flatnonzero(shares >= test_share + data.validation)),
        "validation": (train, np.flatnonzero(validation)),
        "test": (test, np.arange(len(test))) if test else (train, np.flatnonzero(shares < test_share)),
    }
    for name, (_, indices) in parts.items():
        if not len(indices):
            raise UserError(
                f"of {len(train)} pictures none fall into the {name} split; "
                "add pictures, or raise data.validation and data.test"
            )
    label_names = source.label_names if data.labels else ()
    splits = {name: Split(name, data, _with_labels(p, bool(label_names)), i) for name, (p, i) in parts.items()}
    held_bytes = sum(map(len, splits.values())) * data.channels * np.prod([s + data.margin for s in data.size])
    if held_bytes <= data.memory_gb * 2**30:
        for split in splits.values():
            split.hold(quiet)
    return DataSet(**splits, label_names=label_names, fingerprint=_fingerprint(splits))


def _with_labels(pictures: Pictures, wanted: bool) -> Pictures:
    return pictures if wanted else replace(pictures, labels=None)


def _fingerprint(splits: dict[str, Split]) -> str:
    """Names and labels of all pictures and the pixels of up to 32 a split, spread evenly, in one hash."""
    digest = hashlib.sha256()
    for split in splits.values():
        digest.update("\n".join(split.pictures.keys[i] for i in split.indices).encode())
        if split.labels is not None:
            digest.update(split.labels.numpy().astype("<i8").tobytes())
        for index in np.unique(np.linspace(0, len(split) - 1, 32).astype(int)):
            digest.update(split.canvas(torch.tensor([index])).numpy().tobytes())
    return digest.hexdigest()
