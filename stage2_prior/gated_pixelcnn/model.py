"""Gated PixelCNN: the prior over code maps.

Conditional Image Generation with PixelCNN Decoders, van den Oord et al. 2016,
https://arxiv.org/abs/1606.05328.

What is done differently here, and why:
- The kernels have only the taps they may use (see causal.py), so there is no mask to get wrong.
- The first vertical layer looks at the rows above only, so the vertical features need no shift before they
  join the horizontal stack.

Legend: B maps, C channels, h x w the map, K codes.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqprior.configs.schema import Stage2
from vqprior.runtime.codes import Codes, Level

from ..above import Above
from ..embedding import CodeEmbedding, LabelBiases
from ..prior import Prior
from .cache import CachedPixelCNN
from .layers import GatedLayer


class PixelCNN(Prior):
    """The Gated PixelCNN; arguments as for `Prior`."""

    FITTING = ("kernel", "head")
    CACHE = CachedPixelCNN

    def __init__(self, config: Stage2, level: Level, classes: int, above: Sequence[Level] = ()):
        super().__init__(config, level, classes, above)
        own, self.dropout_groups = config.gated_pixelcnn, config.layers
        self.embedding = CodeEmbedding(level, config.channels)
        self.layers = nn.ModuleList(
            GatedLayer(config.channels, own.kernel, first=index == 0, conditional=bool(above))
            for index in range(config.layers)
        )
        self.above = Above(above, config.channels, config.above_blocks) if above else None
        # Equation 4's biases, of both stacks of a layer together
        given = (self.labels, config.layers, 4 * config.channels)
        self.label_bias = LabelBiases(*given) if self.labels else None
        self.hidden = nn.Conv2d(config.channels, own.head, 1)
        self.logits = nn.Conv2d(own.head, level.K, 1)
        nn.init.zeros_(self.logits.weight)  # start from the uniform prior: the first loss is log K
        nn.init.zeros_(self.logits.bias)

    def label_tensors(self) -> list[str]:
        return ["label_bias.weight"] if self.classes else []

    def label_biases(self, labels: Tensor | None) -> Sequence[Tensor | None]:
        """For each layer what the labels [B] add to its features, [B, 4C]; None without classes."""
        return [None] * len(self.layers) if self.label_bias is None else self.label_bias(labels)

    def forward(
        self,
        codes: Tensor,
        labels: Tensor | None = None,
        above: Codes = (),
        dropped: Tensor | None = None,
    ) -> Tensor:
        """See `Prior.forward`; `dropped` are the factors [B, layers, C] of the gated channels."""
        self.check_given(labels, above)
        x = rearrange(self.embedding(codes), "b h w c -> b c h w")
        v = h = x  # [B, C, h, w]
        biases, said = self.label_biases(labels), self.above(above) if self.above else None
        factors = [None] * len(self.layers) if dropped is None else dropped.unbind(1)
        for layer, bias, factor in zip(self.layers, biases, factors, strict=True):
            v, h = layer(v, h, bias, factor, said)
        return self.logits(F.relu(self.hidden(F.relu(h))))  # [B, K, h, w]

    def forward_numbers(self) -> int:
        return super().forward_numbers() + 12 * self.config.channels * self.level.places

    def cached_numbers(self) -> int:
        width = self.level.width
        numbers = 1 + 4 * width  # the last features, and a vertical stack's output and its copy
        numbers += self.level.places if self.above else 0
        for layer in self.layers:
            reach = layer.horizontal.reach
            slots = reach if layer.first else reach + 1
            ring, row, context = slots * (width + 2 * reach), reach + width, 2 * width
            biases = 4 if self.classes else 0
            of_above = 4 * width if self.above else 0
            numbers += ring + row + context + 1 + biases + of_above
        return numbers * self.config.channels
