"""A decoder-only transformer: the prior over code maps as a sequence in raster order.

Attention Is All You Need, Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, pre-norm (arXiv 2002.04745).

What is done differently here, and why:
- Token t holds the code of place t - 1 and predicts that of place t. Its keys say where the code stands that
  it holds, its queries where the one stands that it predicts (see layers.py): the place before another in
  the sequence may be at the other end of the map.
- Heads share their keys and values, for the sake of sampling (see layers.py).
- There is no token for the class in the vocabulary: what stands before the first code is a vector of the
  class, and every block adds another to all tokens.

Legend: B maps, K codes, h x w the map, T = h w tokens, C channels.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from vqprior.configs.schema import Stage2
from vqprior.runtime.codes import Codes, Level

from ..above import Above
from ..embedding import CodeEmbedding, LabelBiases
from ..places import place_features, place_numbers
from ..prior import Prior
from .cache import CachedTransformer
from .layers import WIDER, Block, turns

SPREAD = 0.02  # of the first weights


class Transformer(Prior):
    """The transformer; arguments as for `Prior`."""

    FITTING = ("heads",)
    CACHE = CachedTransformer

    def __init__(self, config: Stage2, level: Level, classes: int, above: Sequence[Level] = ()):
        super().__init__(config, level, classes, above)
        channels, heads = config.channels, config.transformer.heads
        self.dropout_groups = 2 * config.layers
        self.embedding = CodeEmbedding(level, channels)
        self.start = nn.Embedding(max(1, self.labels), channels)  # in place of a code before the first
        self.place = nn.Linear(place_numbers(level.codes_per_position), channels)
        conditional = bool(above)
        self.blocks = nn.ModuleList(
            Block(channels, heads, conditional=conditional) for _ in range(config.layers)
        )
        self.label_bias = LabelBiases(self.labels, config.layers, channels) if self.labels else None
        self.norm = nn.LayerNorm(channels, bias=False)
        self.logits = nn.Linear(channels, level.K)
        self.above = Above(above, channels, config.above_blocks) if above else None
        self._begin()

    def _begin(self) -> None:
        """First weights: what is added to a token is small, and the prior is uniform: the first loss is log
        K."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=SPREAD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            for last in (block.attended, block.narrow):
                nn.init.normal_(last.weight, std=SPREAD / (2 * len(self.blocks)) ** 0.5)
        nn.init.zeros_(self.logits.weight)

    def undecayed(self) -> list[str]:
        return [*super().undecayed(), "start.weight"]

    def label_tensors(self) -> list[str]:
        return ["start.weight", "label_bias.weight"] if self.classes else []

    def label_biases(self, labels: Tensor | None) -> Sequence[Tensor | None]:
        """For each block what the labels [B] add to all tokens, [B, C]; None without classes."""
        return [None] * len(self.blocks) if self.label_bias is None else self.label_bias(labels)

    def places(self, height: int, width: int) -> Tensor:
        """What each token is told of the place that it predicts, [T, C]."""
        n, device = self.level.codes_per_position, self.device
        return self.place(place_features(height, width, n, device).to(self.dtype)).flatten(0, 1)

    def turns(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """What queries and keys are turned by, [2, T, d / 2] each; the start stands to the left of the first
        place."""
        d = self.config.channels // self.config.transformer.heads
        place = torch.arange(height * width, device=self.device)
        rows, columns = place // width, place % width
        before = torch.cat([rows[:1], rows[:-1]]), torch.cat([columns[:1] - 1, columns[:-1]])
        return turns(rows, columns, d), turns(*before, d)

    def before(self, labels: Tensor | None, maps: int) -> Tensor:
        """What stands in place of a code before the first, [B, C]."""
        return self.start(
            torch.zeros(maps, dtype=torch.int64, device=self.device) if labels is None else labels
        )

    def forward(
        self,
        codes: Tensor,
        labels: Tensor | None = None,
        above: Codes = (),
        dropped: Tensor | None = None,
    ) -> Tensor:
        """See `Prior.forward`; `dropped` are the factors [B, 2 layers, C] of what attention and the network
        of each block add."""
        self.check_given(labels, above)
        height, width = codes.shape[1:]
        embedded = self.embedding(codes).flatten(1, 2)  # [B, T, C]
        x = torch.cat([self.before(labels, codes.shape[0])[:, None], embedded[:, :-1]], dim=1)
        x = x + self.places(height, width)
        said = rearrange(self.above(above), "b c h w -> b (h w) c") if self.above else None
        turned_by, biases = self.turns(height, width), self.label_biases(labels)
        factors = [None] * len(self.blocks) if dropped is None else dropped.chunk(len(self.blocks), 1)
        for block, bias, of_block in zip(self.blocks, biases, factors, strict=True):
            x = block(x, *turned_by, bias, said, of_block)
        logits = self.logits(self.norm(x))  # [B, T, K]
        return rearrange(logits, "b (h w) k -> b k h w", h=height)

    def forward_numbers(self) -> int:
        wide = (4 + 2 * WIDER) * self.config.channels
        return super().forward_numbers() + wide * self.level.places

    def cached_numbers(self) -> int:
        channels, layers, (_, width) = self.config.channels, len(self.blocks), self.level.size
        keys_and_values = 2 * layers * self.level.places * channels // self.config.transformer.heads
        of_above = (self.level.places + width * layers) * channels if self.above else 0
        return keys_and_values + of_above + (layers + 8 + 2 * WIDER) * channels
