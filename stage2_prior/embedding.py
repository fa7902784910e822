"""Codes as vectors, which every prior looks up.

Legend: B maps, C channels, h x w the map, n its codes a position, K codes.
"""

import torch
from torch import Tensor, nn

from vqprior.runtime.codes import Level


class CodeEmbedding(nn.Embedding):
    """Codes [B, h, w] of a level -> vectors [B, h, w, C].

    Where n columns each are codes of one square of pixels (codes_per_position), the first, second, ... of
    them have a table of their own, so that a prior can tell them apart: one below the other, [n * K, C].
    """

    def __init__(self, level: Level, channels: int):
        super().__init__(level.codes_per_position * level.K, channels)
        self.level = level

    def forward(self, codes: Tensor) -> Tensor:
        which = torch.arange(codes.shape[-1], device=codes.device) % self.level.codes_per_position
        return super().forward(codes + which * self.level.K)
