"""The memory that maps are drawn in: taken for the first of them, and used again by all others of the same size.

On a GPU the work for a code is then the same operations on the same memory for each row and for each chunk of maps.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from vqprior.stage2_prior.cached import CachedPixelCNN
from vqprior.stage2_prior.pixelcnn import PixelCNN

from .noise import NoiseMemory


class Workspace:
    """The memory of one chunk of maps: for the activations of the prior, a row of codes, and the noise of a row."""

    def __init__(self) -> None:
        self.noise = NoiseMemory()
        self._size: tuple[object, ...] = ()
        self._cache: CachedPixelCNN | None = None
        self._rows = torch.empty(0, dtype=torch.int64)

    def cache(
        self, prior: PixelCNN, labels: Tensor | None, *, maps: int, width: int, dtype: torch.dtype | None
    ) -> CachedPixelCNN:
        """A cache for maps of these labels, with the weights that the prior has now."""
        size = (id(prior), prior.device, prior.embedding.weight.dtype, maps, width, dtype)
        if self._cache is not None and size == self._size:
            self._cache.reset(labels)
        else:
            self._cache = None  # first give back what is there
            self._cache = CachedPixelCNN(prior, labels, maps=maps, width=width, dtype=dtype)
            self._rows = torch.empty(2, maps, width, dtype=torch.int64, device=prior.device)
            self._size = size
        return self._cache

    def rows(self, maps: int) -> Tensor:
        """Two rows of codes [2, maps, w] of the maps that the cache is for, or of the first of them."""
        return self._rows[:, :maps]


class Spare:
    """One workspace that is not in use; calls from several threads each have one, of which the last to end is kept."""

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
