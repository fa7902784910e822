"""PixelSNAIL: blocks of gated causal convolutions, each followed by attention to all earlier places.

PixelSNAIL: An Improved Autoregressive Generative Model, Chen et al. 2017, https://arxiv.org/abs/1712.09763.

What is done differently here, and why:
- Kernels have only the taps they may use (see causal.py), and attention is causal by shifting keys and values
  by one place (see layers.py): there is no mask to get wrong, and no [T, T] matrix is built.
- The gates are those of the Gated PixelCNN (tanh times sigmoid), one convolution each. Codes are embedded,
  not one-hot, and the background has waves of the coordinates besides the coordinates themselves.
- Attention has several heads, ends in a gate as every layer does, and what conditions the convolutions
  conditions it too.

Legend: B maps, K codes, h x w the map, C channels, P numbers of a place.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqprior.configs.schema import Stage2
from vqprior.runtime.codes import Codes, Level

from ..above import Above
from ..embedding import CodeEmbedding, LabelBiases
from ..places import place_features, place_numbers
from ..prior import Prior
from .cache import CachedPixelSNAIL
from .layers import HEAD, Attention, GatedLayer, Told


class Block(nn.Module):
    """Gated layers, then attention."""

    def __init__(self, layers: Sequence[GatedLayer], attention: Attention):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.attention = attention


class PixelSNAIL(Prior):
    """PixelSNAIL; arguments as for `Prior`."""

    FITTING = ("blocks", "kernel", "heads")
    CACHE = CachedPixelSNAIL

    def __init__(self, config: Stage2, level: Level, classes: int, above: Sequence[Level] = ()):
        super().__init__(config, level, classes, above)
        own, channels = config.pixelsnail, config.channels
        self.embedding = CodeEmbedding(level, channels)
        conditional, places = bool(above), place_numbers(level.codes_per_position)
        layers = [
            GatedLayer(channels, own.kernel, first=index == 0, conditional=conditional)
            for index in range(config.layers)
        ]
        self.blocks = nn.ModuleList(
            Block(layers[begin:end], Attention(channels, own.heads, places, conditional=conditional))
            for begin, end in shares(config.layers, own.blocks)
        )
        self.gates = self.dropout_groups = config.layers + own.blocks
        self.label_bias = LabelBiases(self.labels, self.gates, 2 * channels) if self.labels else None
        self.skips = nn.Conv2d(own.blocks * channels, channels, 1)  # of every block, a way to the output
        self.logits = nn.Conv2d(channels, level.K, 1)
        self.above = Above(above, channels, config.above_blocks) if above else None
        nn.init.zeros_(self.logits.weight)  # start from the uniform prior: the first loss is log K
        nn.init.zeros_(self.logits.bias)

    def label_tensors(self) -> list[str]:
        return ["label_bias.weight"] if self.classes else []

    def label_biases(self, labels: Tensor | None) -> Sequence[Tensor | None]:
        """For each gate what the labels [B] add before it, [B, 2C]; None without classes."""
        return [None] * self.gates if self.label_bias is None else self.label_bias(labels)

    def places(self, height: int, width: int) -> Tensor:
        """The numbers of each place, [h, w, P]."""
        return place_features(height, width, self.level.codes_per_position, self.device).to(self.dtype)

    def forward(
        self,
        codes: Tensor,
        labels: Tensor | None = None,
        above: Codes = (),
        dropped: Tensor | None = None,
    ) -> Tensor:
        """See `Prior.forward`; `dropped` are the factors [B, gates, C] of the gated channels."""
        self.check_given(labels, above)
        embedded, places = self.embedding(codes), self.places(*codes.shape[1:])
        told = self._told(labels, above, dropped)
        x = rearrange(embedded, "b h w c -> b c h w")
        ends = []
        for block in self.blocks:
            for layer in block.layers:
                x = layer(x, next(told))
            x = block.attention(x, embedded, places, next(told))
            ends.append(x)
        return self.logits(F.relu(self.skips(torch.cat(ends, dim=1))))  # [B, K, h, w]

    def _told(self, labels: Tensor | None, above: Codes, dropped: Tensor | None) -> Iterator[Told]:
        """For each gate what it is told."""
        said = self.above(above) if self.above else None
        factors = [None] * self.gates if dropped is None else dropped.unbind(1)
        for label, of_gate in zip(self.label_biases(labels), factors, strict=True):
            yield Told(label, said, of_gate)

    def forward_numbers(self) -> int:
        inner, channels = self.config.pixelsnail.heads * HEAD, self.config.channels
        of_place = (8 + 2 * len(self.blocks)) * channels + 7 * inner
        return super().forward_numbers() + of_place * self.level.places

    def cached_numbers(self) -> int:
        channels, inner, width = self.config.channels, self.config.pixelsnail.heads * HEAD, self.level.width
        reach, blocks, places = self.config.pixelsnail.kernel // 2, len(self.blocks), self.level.places
        gates = self.gates * (2 * width + 3) * channels  # contexts, labels, what is gated
        rings_and_rows = self.config.layers * (reach * (width + 2 * reach) + reach + width) * channels
        attention = blocks * (2 * inner * (places + 1) + 4 * inner + 3 * channels)
        codes_and_ends = (2 + blocks) * channels + 2 * blocks * inner
        of_above = places * channels if self.above else 0
        passing = 2 * width * channels  # what a row takes from those above
        return gates + rings_and_rows + attention + codes_and_ends + of_above + passing


def shares(items: int, parts: int) -> list[tuple[int, int]]:
    """Where each of so many parts of items 0 to N-1 begins and ends, as even as can be."""
    ends = [items * part // parts for part in range(parts + 1)]
    return list(pairwise(ends))
