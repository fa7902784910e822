"""One split of a data set: its pictures, decoded, and what stands in for one that cannot be read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data

from ..randomness import share_of
from .decode import Decoded, Unreadable, decode
from .prepared import Prepared
from .record import DAMAGED, SKIPPED, note
from .source import Pictures
from .threads import in_threads, pool
from .transform import central, least_size, prepare

DRAWN = 64  # stand-ins that are drawn by chance, before all are tried in their order


@dataclass
class Split:
    """Some of a source's pictures, decoded: held in memory, or read as they are asked for."""

    name: str
    data: Data
    pictures: Pictures
    indices: np.ndarray  # [N] int64 into the pictures, -1 where one is gone
    keys: Sequence[str]  # [N] names
    numbers: np.ndarray | None  # [N] int64 classes, or None without
    absent: dict[int, str] = field(default_factory=dict)  # pictures that a begun run goes on without, and why
    listing: Path | None = None  # the run in which pictures are listed that it goes on without
    prepared: Prepared | None = None  # where prepared pictures are kept
    held: Tensor | None = field(default=None, repr=False)  # [N, C, H + m, W + m] uint8

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> Tensor | None:
        """[N] int64, or None without classes."""
        return None if self.numbers is None else torch.from_numpy(self.numbers)

    def names(self, indices: Tensor) -> list[str]:
        """The names of the pictures with these indices [n]; of the one that stands in, where one could not be
        read."""
        standing = (
            next(i for i in self._standing_in(index) if i not in self.absent) for index in indices.tolist()
        )
        return [self.keys[index] for index in standing]

    @cached_property
    def _members(self) -> dict[int, np.ndarray]:
        """The pictures of each class, ascending; all of them under 0 without classes."""
        if self.numbers is None:
            return {0: np.arange(len(self))}
        return {int(number): np.flatnonzero(self.numbers == number) for number in np.unique(self.numbers)}

    def _standing_in(self, index: int) -> Iterator[int]:
        """A picture, and then those that stand in for it where it cannot be read: others of its class, by
        chance.

        A function of the index alone: every process, and a run that is resumed, tries the same in the same
        order.
        """
        yield index
        members = self._members[0 if self.numbers is None else int(self.numbers[index])]
        for attempt in range(DRAWN):
            yield int(members[int(share_of(f"{index} {attempt}") * len(members))])
        yield from members.tolist()

    def read(self, index: int) -> np.ndarray:
        """Decode one picture: uint8 [C, H + m, W + m].

        Under data.on_error `skip` another one of its class stands in for one that cannot be read.

        Raises:
            UserError: it cannot be read, and data.on_error is `stop`, or no other of its class can be.
        """
        for stand_in in self._standing_in(index):
            try:
                return self.decoded(stand_in)
            except Unreadable as error:
                if self.data.on_error == "stop":
                    self._note(stand_in, error, DAMAGED)
                    raise UserError(f"{error}; fix it, or go on without it: --data.on_error skip") from error
                if stand_in not in self.absent:
                    self.absent[stand_in] = error.reason
                    self._note(stand_in, error, SKIPPED)
        raise UserError(
            f"{self.keys[index]} cannot be read, nor any other picture of its class in the {self.name} "
            "split; "
            "fix them, or begin a run without them (a new --out)"
        )

    def decoded(self, index: int) -> np.ndarray:
        """One picture and no other, uint8 [C, H + m, W + m]; raises Unreadable."""
        if index in self.absent:
            raise Unreadable(self.keys[index], self.absent[index])
        if self.prepared and (pixels := self.prepared.get(index)) is not None:
            return pixels
        at = int(self.indices[index])
        picture = decoded(self.pictures, at, self.data)
        try:
            pixels = prepare(picture, self.data)
        except (UserError, ValueError, OSError, MemoryError) as error:
            raise Unreadable(self.pictures.reader.where(at), str(error)) from error
        if self.prepared:
            self.prepared.put(index, pixels)
        return pixels

    def _note(self, index: int, error: Unreadable, file: str) -> None:
        if self.listing:
            note(self.listing / file, self.name, self.keys[index], error.reason)

    def canvas(self, indices: Tensor) -> Tensor:
        """Pictures [n, C, H + m, W + m] uint8, with the margin from which training takes its windows."""
        if self.held is not None:
            return self.held.index_select(0, indices)  # several times as fast as held[indices]
        return torch.from_numpy(np.stack([*pool(self.data.workers).map(self.read, indices.tolist())]))

    def images(self, indices: Tensor) -> Tensor:
        """Pictures [n, C, H, W] uint8 as evaluation, encoding and figures see them."""
        return central(self.canvas(indices), self.data)

    def met(self, index: int) -> np.ndarray | None:
        """As `decoded`, before a run begins: one that cannot be read is noted as absent, and is None."""
        try:
            return self.decoded(index)
        except Unreadable as error:
            self.absent[index] = error.reason
            return None

    def hold(self, quiet: bool = True, *, meeting: bool = False) -> None:
        """Decode all pictures and keep them; `meeting` those of a new run, which goes on without those that
        cannot be read (see `met`)."""
        read = self.met if meeting else self.read
        shape = (self.data.channels, *(pixels + self.data.margin for pixels in self.data.size))
        held = torch.empty(len(self), *shape, dtype=torch.uint8)
        pixels = in_threads(read, len(self), self.data.workers, name=f"decode {self.name}", quiet=quiet)
        for index, picture in enumerate(pixels):
            if picture is not None:
                held[index] = torch.from_numpy(picture.copy())
        self.held = held


def decoded(pictures: Pictures, index: int, data: Data) -> Decoded:
    """A picture of a source as `prepare` takes it.

    Raises:
        Unreadable: for whatever reason.
    """
    where = pictures.reader.where(index)
    try:
        content = pictures.reader.content(index)
    except OSError as error:
        raise Unreadable(where, error.strerror or str(error)) from error
    return decode(content, where, least=least_size(data))
