"""Codes and labels as vectors, which priors look up.

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


class LabelBiases(nn.Embedding):
    """Labels [B] -> what they add before each gate, [B, 2C] each.

    All lie side by side in one table: one lookup and one cast instead of one a gate.

    Args:
        labels: how many there are, with the hidden one.
        gates: how many.
        numbers: of a gate, 2C, or of several gates that are handed out together.
    """

    def __init__(self, labels: int, gates: int, numbers: int):
        super().__init__(labels, gates * numbers)
        self.gates = gates

    def forward(self, labels: Tensor) -> tuple[Tensor, ...]:
        biases = super().forward(labels)
        # In the type of what they are added to: a sum of bf16 and fp32 would be fp32, and so would all that
        # follows
        device = biases.device.type
        if torch.is_autocast_enabled(device):
            biases = biases.to(torch.get_autocast_dtype(device))
        return biases.chunk(self.gates, dim=1)
