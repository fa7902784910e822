"""Finite scalar quantization: each number of a vector is rounded on its own, and no codebook has to be learnt.

Finite Scalar Quantization: VQ-VAE Made Simple, Mentzer et al. 2023, https://arxiv.org/abs/2309.15505 (section 3.1 and the
listing in the appendix).

Legend: L_i levels of number i, D of them; K = L_1 * ... * L_D codes, in which number 1 counts fastest.
"""

import math
from typing import Self

import torch
from einops import rearrange
from torch import Tensor

from vqprior.configs.schema import Stage1

from .quantizer import Quantized, Quantizer, carried

EPSILON = 1e-3  # keeps the outermost levels from being reached only in the limit


class FSQ(Quantizer):
    """Rounds each of D numbers to L_i levels.

    Args:
        levels: L_i, each at least 2.
    """

    def __init__(self, levels: tuple[int, ...]):
        super().__init__()
        self.levels, self.K, self.D = tuple(levels), math.prod(levels), len(levels)
        sizes = torch.tensor(levels)
        steps = torch.cat([torch.ones(1, dtype=torch.int64), sizes[:-1].cumprod(0)])
        reach = (sizes - 1) * (1 - EPSILON) / 2
        offset = torch.where(sizes % 2 == 0, 0.5, 0.0)  # an even number of levels has none at zero
        of_numbers = {"sizes": sizes, "steps": steps, "reach": reach, "offset": offset, "shift": (offset / reach).tan()}
        for name, values in of_numbers.items():  # they follow the module to its device, and are in no checkpoint
            self.register_buffer(name, values[:, None, None], persistent=False)

    @classmethod
    def of(cls, config: Stage1) -> Self:
        return cls(config.fsq.levels)

    @staticmethod
    def size(config: Stage1) -> int:
        return len(config.fsq.levels)

    def quantize(self, z_e: Tensor) -> Quantized:
        bounded = (z_e + self.shift).tanh() * self.reach - self.offset
        rounded = bounded.round()
        half = self.sizes // 2
        codes = ((rounded.detach().long() + half) * self.steps).sum(1)  # [B, h, w]
        return Quantized(carried(bounded, rounded) / half, bounded / half, codes, {})

    def embed(self, codes: Tensor) -> Tensor:
        numbers = rearrange(codes, "b h w -> b 1 h w") // self.steps % self.sizes
        half = self.sizes // 2
        return (numbers - half) / half
