"""Rows of codes at one launch each, on a CUDA GPU.

Drawing a code is some dozens of small kernels, which a GPU runs faster than the host can start them. All that
a row does lies in the same memory for all maps of a size, so it can be recorded once, as a CUDA graph, and is
then one launch. What changes from maps to maps is copied in: hashes that the noise is made of, codes that are
known, and settings of single maps; weights, labels and levels above are read by the cache's own `reset`.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from torch import Tensor

from vqprior.runtime import graph
from vqprior.stage2_prior.prior import Cache

from .choice import Choice
from .noise import GumbelNoise
from .sampler import Guided, draw_row


class RecordedRows:
    """What `sampler.rows` does, recorded; the cache must be reset after this, and before each call.

    The cache, the memory of the noise and that of the rows are written to by every call: nothing else may
    use them.

    Args:
        cache, noise, choice, memory, height, known: as for `sampler.rows`; in later calls other noise of as
            many maps, other known codes, and other settings of single maps.

    Raises:
        RuntimeError: something in it cannot be recorded.
    """

    def __init__(
        self,
        cache: Cache,
        noise: GumbelNoise,
        choice: Choice,
        memory: Tensor,
        height: int,
        known: Tensor | None = None,
    ):
        self.row = memory[0]
        self.noise = replace(noise, hashed=noise.hashed.clone())
        self.choice = replace(choice, **{name: mine.clone() for name, mine in choice.tensors().items()})
        self.known = None if known is None else known.clone()
        if isinstance(cache, Guided):
            cache = Guided(cache.cache, cache.null_label, self.choice.guidance)
        work = partial(
            draw_row, cache=cache, noise=self.noise, choice=self.choice, memory=memory, known=self.known
        )
        self.replays = graph.record_in_turn((partial(work, i) for i in range(height)), memory.device)

    def __call__(self, noise: GumbelNoise, choice: Choice, known: Tensor | None = None) -> Iterator[Tensor]:
        """The rows of B maps, [B, w] int64, one after the other; a row is good until the next one."""
        self.noise.hashed.copy_(noise.hashed)
        for name, mine in self.choice.tensors().items():
            mine.copy_(getattr(choice, name))
        if known is not None:
            self.known.copy_(known)
        for replay in self.replays:
            replay()
            yield self.row
