"""PixelSNAIL: blocks of gated causal convolutions, each followed by attention to all earlier places.

PixelSNAIL: An Improved Autoregressive Generative Model, Chen et al. 2017, https://arxiv.org/abs/1712.09763.

What is done differently here, and why:
- Kernels have only the taps they may use, and attention is causal by moving keys on by one place (see
  layers.py): there is no mask to get wrong, and no [T, T] matrix is built.
- The gates are those of the Gated PixelCNN (tanh times sigmoid); codes are embedded, not one-hot.
- Every block's features go to the output by a way of their own, added up (skips).

Legend: B maps, K codes, h x w the map, C channels, P numbers of a place.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqprior.configs.schema import Stage2
from vqprior.runtime.codes import Codes, Level

from ..above import Above
from ..dropout import channel_factors, channel_keys
from ..places import place_features, place_numbers
from ..prior import Prior
from .cache import CachedPixelSNAIL
from .layers import HEAD, Attention, GatedLayer


class Block(nn.Module):
    """Gated layers, then attention, and the way from here to the output."""

    def __init__(self, layers: Sequence[GatedLayer], channels: int, heads: int, places: int):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.attention = Attention(channels, heads, places)
        self.skip = nn.Conv2d(channels, channels, 1)


class PixelSNAIL(Prior):
    """PixelSNAIL.

    Args:
        config: channels, layers, blocks, kernel, heads and dropout.
        level: of the maps.
        classes: number of labels, 0 for an unconditional prior.
        above: the levels that are coarser, coarsest first.
    """

    FITTING = ("blocks", "kernel", "heads")

    def __init__(self, config: Stage2, level: Level, classes: int, above: Sequence[Level] = ()):
        super().__init__(level, classes, above, hides_labels=config.label_dropout > 0)
        self.config, own, channels = config, config.pixelsnail, config.channels
        self.embedding = nn.Embedding(level.codes_per_position * level.K, channels)
        layers = [
            GatedLayer(channels, own.kernel, first=index == 0, conditional=bool(above))
            for index in range(config.layers)
        ]
        places = place_numbers(level.codes_per_position)
        self.blocks = nn.ModuleList(
            Block(layers[begin:end], channels, own.heads, places)
            for begin, end in shares(config.layers, own.blocks)
        )
        rows = self.labels
        self.label_bias = nn.Embedding(rows, config.layers * 2 * channels) if rows else None
        self.logits = nn.Conv2d(channels, level.K, 1)
        self.above = Above(above, channels, config.above_blocks) if above else None
        nn.init.zeros_(self.logits.weight)  # start from the uniform prior: the first loss is log K
        nn.init.zeros_(self.logits.bias)

    def undecayed(self) -> list[str]:
        return [
            "embedding.weight",
            *(f"above.{name}" for name in (self.above.undecayed() if self.above else [])),
        ]

    def label_tensors(self) -> list[str]:
        return ["label_bias.weight"] if self.classes else []

    def label_biases(self, labels: Tensor | None) -> list[Tensor | None]:
        """For each layer what the labels [B] add to it before its gate, [B, 2C]; None without classes."""
        if self.label_bias is None:
            return [None] * self.config.layers
        biases = self.label_bias(labels)
        # In the type of what they are added to, or all that follows would be fp32
        if torch.is_autocast_enabled(self.device.type):
            biases = biases.to(torch.get_autocast_dtype(self.device.type))
        return list(biases.chunk(self.config.layers, dim=1))

    def background(self, height: int, width: int) -> Tensor:
        """The numbers of each place, [P, h, w]."""
        features = place_features(height, width, self.level.codes_per_position, self.device)
        return rearrange(features.to(self.dtype), "h w p -> p h w")

    def forward(
        self,
        codes: Tensor,
        labels: Tensor | None = None,
        above: Codes = (),
        dropped: Tensor | None = None,
    ) -> Tensor:
        """See `Prior.forward`; `dropped` are the factors [B, layers + blocks, C] of the gated channels."""
        self.check_given(labels, above)
        height, width = codes.shape[1:]
        which = torch.arange(width, device=codes.device) % self.level.codes_per_position
        embedded = rearrange(self.embedding(codes + which * self.K), "b h w c -> b c h w")
        background = self.background(height, width).expand(len(codes), -1, -1, -1)
        said = self.above(above) if self.above else None
        biases = iter(self.label_biases(labels))
        gates = self.config.layers + len(self.blocks)
        factors = iter([None] * gates if dropped is None else dropped.unbind(1))
        x, out = embedded, 0
        for block in self.blocks:
            for layer in block.layers:
                x = layer(x, next(biases), said, next(factors))
            x = block.attention(x, embedded, background, next(factors))
            out = out + block.skip(x)
        return self.logits(F.relu(out))  # [B, K, h, w]

    def dropout_keys(self, seed: int, positions: Tensor) -> Tensor | None:
        """[B, layers + blocks] int64."""
        gates = self.config.layers + len(self.blocks)
        return channel_keys(seed, positions, gates) if self.config.dropout else None

    def dropout(self, keys: Tensor | None) -> Tensor | None:
        """Factors [B, layers + blocks, C] of the gated channels."""
        return None if keys is None else channel_factors(keys, self.config.channels, self.config.dropout)

    def cache(
        self,
        labels: Tensor | None,
        above: Codes = (),
        *,
        maps: int,
        dtype: torch.dtype | None = None,
    ) -> CachedPixelSNAIL:
        return CachedPixelSNAIL(self, labels, above, maps=maps, dtype=dtype)

    def forward_numbers(self) -> int:
        inner = self.config.pixelsnail.heads * HEAD
        return super().forward_numbers() + (8 * self.config.channels + 5 * inner) * self.level.places

    def cached_numbers(self) -> int:
        channels, reach, width = self.config.channels, self.config.pixelsnail.kernel // 2, self.level.width
        ring, row, context, bias = reach * (width + 2 * reach), reach + width, 2 * width, 2
        layers = self.config.layers * (ring + row + context + bias) * channels
        keys_and_values = 2 * self.config.pixelsnail.heads * HEAD * (self.level.places + 1)
        of_above = self.level.places * channels if self.above else 0
        return layers + len(self.blocks) * (keys_and_values + channels) + of_above + 8 * channels


def shares(items: int, parts: int) -> list[tuple[int, int]]:
    """Where each of so many parts of items 0 to N-1 begins and ends, as even as can be."""
    ends = [items * part // parts for part in range(parts + 1)]
    return list(pairwise(ends))
