"""Models of code maps that know no neighbours: what a prior must beat.

Legend: N maps, h x w their size, K codes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vqprior.runtime.codes import Level
from vqprior.runtime.randomness import hash64, uniform

CodeModel = Callable[[Tensor], Tensor]
"""Numbers of maps [N] int64 -> their codes [N, h, w] int64; map i is map i, whatever others are asked for."""


def independent(p: Tensor, level: Level, seed: int) -> CodeModel:
    """A model of a level that draws each code by itself, with probabilities p [K] at all places or [h * w, K]
    at each.

    They are fp64. Code = the first whose cumulative probability exceeds u, with u a function of (seed, map,
    place).
    """
    places = level.places
    cumulative = p.expand(places, -1).cumsum(1).contiguous()  # [h * w, K]
    cumulative /= cumulative[:, -1:].clone()

    def draw(maps: Tensor) -> Tensor:
        u = uniform(hash64(seed, maps[:, None], torch.arange(places)))  # [N, h * w]
        codes = torch.searchsorted(cumulative, u.T.double().contiguous(), right=True).T
        return codes.clamp(max=p.shape[-1] - 1).reshape(-1, *level.size)

    return draw
