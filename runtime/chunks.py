"""Many items in chunks of one padded size, so that no product changes its shape: what comes of an item does
not depend on how many there are, nor on the number of processes.

    for chunk in chunks(len(split), 64, share_of_process()):
        made = network(split.images(chunk.padded))    # always 64
        total += chunk.own(made).sum()                # without the padding

Legend: N items, n those of a chunk.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from .codes import Codes, joined, picked
from .loader import Share
from .progress import bar

Made = TypeVar("Made", Tensor, Codes)


class Chunk(NamedTuple):
    """Some items that go together."""

    items: Tensor  # [n] int64
    padded: Tensor  # [size] the same, the last repeated

    @classmethod
    def of(cls, items: Tensor, size: int) -> "Chunk":
        """Items [n], padded."""
        return cls(items, torch.cat([items, items[-1:].expand(size - len(items))]))

    def own(self, made: Made) -> Made:
        """What was made of the padded items, [size, ...], without what was made of padding: [n, ...]."""
        here = slice(len(self.items))
        return picked(made, here) if isinstance(made, tuple) else made[here]


def chunks(
    items: int | Tensor,
    size: int,
    share: Share = Share(),  # noqa: B008  frozen
    *,
    name: str = "",
) -> Iterator[Chunk]:
    """Once through items 0 to N-1, or through these [N], in chunks of `size`: those that are this process's,
    each item once over all.

    Args:
        name: of a bar that the main process shows.
    """
    listed = items if isinstance(items, Tensor) else torch.arange(items)
    starts = range(0, len(listed), size)
    own = starts[share.rank :: share.processes]
    for start in bar(own, name, unit="chunk", active=bool(name) and share.rank == 0):
        yield Chunk.of(listed[start : start + size], size)


def in_chunks(work: Callable[[Tensor], Made], items: int | Tensor, size: int) -> Made:
    """The results of `work` for all items, joined; it gets `size` of them at a time."""
    parts = [chunk.own(work(chunk.padded)) for chunk in chunks(items, size)]
    return joined(parts) if isinstance(parts[0], tuple) else torch.cat(parts)
