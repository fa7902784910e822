"""What the coarser levels of codes say of each place of a level's map.

It depends on no code of the level itself, so it is made once for a map, and every layer of a prior adds what
it makes of it at its place. (VQ-VAE-2, section 3.2 and appendix B: the prior of the bottom level is
conditioned on the top one by a stack of residual blocks.)

Legend: B maps, C channels, h x w this level's map, n its codes a position.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqprior.runtime.codes import Codes, Level

from .embedding import CodeEmbedding


class ResidualBlock(nn.Module):
    """x + Conv1x1(ReLU(Conv3x3(ReLU(x))))."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(F.relu(self.conv(F.relu(x))))


class Above(nn.Module):
    """The codes of all coarser levels -> [B, C, h, w].

    From the coarsest on: the codes of a position are embedded, each in its own way, and added to what the
    levels above say; then come residual blocks, and twice the size.

    Args:
        levels: the coarser ones, coarsest first.
        channels: C.
        blocks: residual blocks of each level.
    """

    def __init__(self, levels: Sequence[Level], channels: int, blocks: int):
        super().__init__()
        self.codes_per_position = levels[0].codes_per_position
        self.embeddings = nn.ModuleList(CodeEmbedding(level, channels) for level in levels)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks))) for _ in levels
        )
        # Other weights for each of the four places that a position becomes
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(channels, channels, 2, stride=2) for _ in levels)

    def forward(self, codes: Codes) -> Tensor:
        x, n = None, self.codes_per_position
        of_levels = zip(self.embeddings, self.blocks, self.enlarge, codes, strict=True)
        for embedding, blocks, enlarge, of_level in of_levels:
            # [B, C, h, w] of each level: the sum over the codes of each position
            embedded = rearrange(embedding(of_level), "b h (w n) c -> b h w n c", n=n)
            embedded = embedded.sum(3).permute(0, 3, 1, 2)
            x = enlarge(blocks(embedded if x is None else x + embedded))
        return x.repeat_interleave(n, dim=3)
