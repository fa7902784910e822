"""Encoder and decoder of the VQ-VAE: strided 4x4 convolutions and residual blocks (arXiv 1711.00937, section
4.1).

No normalisation over the batch anywhere: what a network makes of one image must not depend on the others.

Legend: B images, C channels of an image, H x W its size, F the downsampling factor, h = H / F, w = W / F, D
channels of what is quantized.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + Conv1x1(ReLU(Conv3x3(ReLU(x))))."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.conv = nn.Conv2d(width, hidden, 3, padding=1)
        self.project = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(F.relu(self.conv(F.relu(x))))


def _widths(width: int, halvings: int) -> list[int]:
    """Channels after each halving of the size: half the width after the first of several, the full width
    after the others."""
    return [width // 2 if index == 0 and halvings > 1 else width for index in range(halvings)]


class Encoder(nn.Module):
    """Images [B, C, H, W], or features, -> encoder outputs z_e [B, D, h, w]; each of the `halvings` halves
    height and width.

    Args:
        beside: channels of what the outputs are made of beside the features, see `outputs`.
    """

    def __init__(
        self,
        channels: int,
        D: int,
        *,
        halvings: int,
        width: int,
        blocks: int,
        block_width: int,
        beside: int = 0,
    ):
        super().__init__()
        widths = [channels, *_widths(width, halvings)]
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths))
        self.conv = nn.Conv2d(widths[-1], width, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(width, block_width) for _ in range(blocks))
        self.project = nn.Conv2d(width + beside, D, 1)

    def features(self, x: Tensor) -> Tensor:
        """What the outputs are a projection of, [B, width, h, w]."""
        for conv in self.down:
            x = F.relu(conv(x))  # [B, width, H / 2^l, W / 2^l]
        x = self.conv(x)  # [B, width, h, w]
        for block in self.blocks:
            x = block(x)
        return F.relu(x)

    def outputs(self, features: Tensor, beside: Tensor | None = None) -> Tensor:
        """Encoder outputs [B, D, h, w] of features, and of more features of that size."""
        return self.project(features if beside is None else torch.cat([features, beside], dim=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs(self.features(x))


class Decoder(nn.Module):
    """Code vectors z_q [B, D, h, w] -> images [B, C, H, W]: the encoder mirrored, with transposed
    convolutions."""

    def __init__(self, channels: int, D: int, *, halvings: int, width: int, blocks: int, block_width: int):
        super().__init__()
        widths = [*reversed(_widths(width, halvings)), channels]
        self.conv = nn.Conv2d(D, width, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(width, block_width) for _ in range(blocks))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths))

    def forward(self, z: Tensor) -> Tensor:
        z = self.conv(z)  # [B, width, h, w]
        for block in self.blocks:
            z = block(z)
        for conv in self.up:
            z = conv(F.relu(z))  # [B, width, h * 2^l, w * 2^l]
        return z  # [B, C, H, W]
