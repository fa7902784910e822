"""The memory that maps are drawn in: taken for the first of them, and used again by all others of the same
size.

On a GPU the work for a code is then the same operations on the same memory for each row and for each chunk of
maps.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from vqprior.runtime.codes import Codes
from vqprior.stage2_prior.prior import Cache, FullForwards, Prior

from .choice import Choice
from .noise import NoiseMemory
from .sampler import Guided, is_guided


class Workspace:
    """The memory of one chunk of maps: for what the prior keeps of them, rows of codes, and the noise of a
    row."""

    def __init__(self) -> None:
        self.noise = NoiseMemory()
        self.rows = torch.empty(0, dtype=torch.int64)
        """[2, B, w]: see `sampler.rows`."""
        self._size: tuple[object, ...] = ()
        self._cache: Cache | None = None

    def cache(
        self,
        prior: Prior,
        labels: Tensor | None,
        above: Codes,
        choice: Choice,
        *,
        maps: int,
        dtype: torch.dtype | None = None,
        in_full: bool = False,
    ) -> Cache:
        """A cache at the beginning of B maps, guided as the choice says, with the weights that the prior has
        now.

        Args:
            labels, above, maps, dtype: as for `Prior.cache`.
            in_full: run the whole prior for each code, whatever cache it has of its own.
        """
        guided = is_guided(choice.guidance)
        if guided:
            labels, above = Guided.both(labels, above, prior.null_label)
        count = 2 * maps if guided else maps
        cache = self._reset(prior, labels, above, maps=count, dtype=dtype, in_full=in_full)
        if self.rows.shape[1:] != (maps, prior.level.width) or self.rows.device != prior.device:
            self.rows = torch.empty(2, maps, prior.level.width, dtype=torch.int64, device=prior.device)
        return Guided(cache, prior.null_label, choice.guidance) if guided else cache

    def _reset(
        self,
        prior: Prior,
        labels: Tensor | None,
        above: Codes,
        *,
        maps: int,
        dtype: torch.dtype | None,
        in_full: bool,
    ) -> Cache:
        """The cache that is there, if it is of this size, at the beginning of other maps; else a new one."""
        size = (id(prior), prior.device, prior.dtype, maps, dtype, in_full)
        if self._cache is not None and size == self._size:
            self._cache.reset(labels, above)
        else:
            self._cache = None  # first give back what is there
            make = FullForwards if in_full else type(prior).cache
            self._cache, self._size = make(prior, labels, above, maps=maps, dtype=dtype), size
        return self._cache


class Spare:
    """One workspace that is not in use; calls from several threads each have one, of which the last to end is
    kept."""

    def __init__(self) -> None:
        self._kept: list[Workspace] = []

    @contextmanager
    def lent(self) -> Iterator[Workspace]:
        """A workspace for the time of a chunk."""
        try:
            workspace = self._kept.pop()
        except IndexError:
            workspace = Workspace()
        yield workspace
        self._kept = [workspace]

    def clear(self) -> None:
        """Give the memory back."""
        self._kept = []
