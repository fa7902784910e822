"""Finite scalar quantization: each number of a vector is rounded by itself. No codebook, no dead codes.

Finite Scalar Quantization: VQ-VAE Made Simple, Mentzer et al. 2023, https://arxiv.org/abs/2309.15505, section
3.1 and the listing of its appendix A.1.

What is done differently here, and why:
- An even number of levels is shifted by the inverse of tanh, where the listing has tan: 0 is bounded to 0.
- A further quantizer of what an earlier one leaves (`depth`, see residual.py) divides the interval that is
  rounded to one number into as many again: its digits go on where those of the earlier one end.
- The bound is wider than the outermost levels by eps, where the listing's is narrower: so two can be shifted.

Legend: B images, N vectors (B*h*w), K codes, D numbers of a vector, L levels of a number, h x w the code map.
"""

from math import atanh, prod
from typing import Self

import torch
from torch import Tensor

from vqprior.configs.schema import Stage1

from .quantizer import Quantized, Quantizer

EPS = 1e-3


class FSQ(Quantizer):
    """K is the product of the levels; a code is a number in mixed radix, its least digit the vector's first.

    Args:
        levels: L of each of the D numbers, 2 to 1000.
        depth: how many quantizers before it have taken their part of the vectors.
    """

    FITTING = ("fsq.levels",)

    def __init__(self, levels: tuple[int, ...], depth: int = 0):
        super().__init__(prod(levels), len(levels))
        self.depth = depth
        reach = [(L - 1) * (1 + EPS) / 2 for L in levels]
        offset = [0.0 if L % 2 else 0.5 for L in levels]
        numbers = {
            "levels": [float(L) for L in levels],
            "middle": [float(L // 2) for L in levels],  # the whole numbers begin at minus it
            "steps": [float(L // 2 * L**depth) for L in levels],  # whole numbers from 0 to 1
            "centre": offset if depth else [0.0 for _ in levels],  # so that they lie evenly about 0
            "places": [prod(levels[:index]) for index in range(len(levels))],  # 1, L1, L1 L2, ...
            "reach": reach,
            "offset": offset,
            "shift": [atanh(o / r) for o, r in zip(offset, reach, strict=True)],
        }
        for name, values in numbers.items():
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)  # [D, 1, 1]

    @classmethod
    def build(cls, settings: Stage1, depth: int = 0) -> Self:
        return cls(settings.fsq.levels, depth)

    @staticmethod
    def code_size(settings: Stage1) -> int:
        return len(settings.fsq.levels)

    def bound(self, z: Tensor) -> Tensor:
        """f of section 3.1: [B, D, h, w] -> numbers that round to the L whole ones from -(L // 2) on."""
        return torch.tanh(z + self.shift) * self.reach - self.offset

    def quantize(self, z_e: Tensor) -> Quantized:
        # What is left over lies between two codes of the quantizer before: it needs no bound
        bounded = z_e * self.steps - self.centre if self.depth else self.bound(z_e)
        rounded = bounded.detach().round().clamp(-self.middle, self.levels - 1 - self.middle)
        codes = ((rounded + self.middle).long() * self.places).sum(1)
        z_e, z_q = (bounded + self.centre) / self.steps, (rounded + self.centre) / self.steps
        return Quantized(z_q, z_e, codes, {})

    def embed(self, codes: Tensor) -> Tensor:
        digits = codes[:, None] // self.places % self.levels
        return (digits - self.middle + self.centre) / self.steps


KIND = FSQ
