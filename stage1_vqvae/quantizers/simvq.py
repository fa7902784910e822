"""Code vectors that all move together: K fixed random ones, seen through one learnt matrix.

Addressing Representation Collapse in Vector Quantized Models with One Linear Layer, Zhu et al. 2024,
https://arxiv.org/abs/2411.02038. Whichever codes are chosen, the gradient of theirs moves the basis of all of
them, so that none is left behind where no encoder output goes.

Legend: K codes, D size of a code.
"""

from typing import Self

import torch
from torch import Tensor, nn

from vqprior.configs.schema import Stage1

from .carry import CARRIES, Carry, straight_through
from .lookup import LearntByGradient


class SimVQ(LearntByGradient):
    """The code vectors are C W: C [K, D] is drawn once, entries N(0, 1/D), and W [D, D] learns.

    Args:
        K: number of codes.
        D: size of a code.
        carry: of the gradient.
    """

    def __init__(self, K: int, D: int, carry: Carry = straight_through):
        super().__init__(K, D, carry)
        self.register_buffer("coefficients", torch.randn(K, D) / D**0.5)
        self.basis = nn.Parameter(nn.Linear(D, D, bias=False).weight.detach().T.clone())

    @classmethod
    def build(cls, settings: Stage1, depth: int = 0) -> Self:
        return cls(settings.K, settings.D, CARRIES[settings.gradient])

    def vectors(self) -> Tensor:
        with torch.autocast(self.basis.device.type, enabled=False):  # decoding comes here by itself, too
            return self.coefficients @ self.basis


KIND = SimVQ
