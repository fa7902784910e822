"""The transformer one token at a time, with the keys and values of all tokens so far kept.

The weights are read once for the maps of a chunk. Keys and values lie in memory that is taken once; a token
writes its own and reads those up to it.

Legend: B maps, C channels, H heads, d channels of a head, T tokens, h x w the map.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from vqprior.runtime.codes import Codes

from ..product import Product
from .layers import Block, turned

if TYPE_CHECKING:
    from .model import Transformer


class _CachedBlock:
    """One block, with the keys and values of the tokens so far."""

    def __init__(self, block: Block, maps: int, width: int, tokens: int, dtype: torch.dtype):
        channels, kind = block.attended.out_features, dict(dtype=dtype, device=block.attended.weight.device)
        self.heads, self.block = block.heads, block
        size = (maps, 1, tokens, channels // block.heads)
        self.keys, self.values = torch.empty(size, **kind), torch.empty(size, **kind)
        names = ("query_key_value", "attended", "widen", "narrow")
        self.products = {name: Product(getattr(block, name), dtype) for name in names}
        self.norms = torch.empty(2, channels, **kind)
        self.label = torch.zeros(maps, channels, **kind)  # what it adds to each token
        # What the block makes of the levels above, for a row
        self.condition = self.said = None
        if block.condition is not None:
            self.condition = Product(block.condition, dtype)
            self.said = torch.empty(width, maps, channels, **kind)

    def read(self, label: Tensor | None) -> None:
        """Take over the weights, and what the labels of the maps add, [B, C]."""
        for product in self.products.values():
            product.read()
        for mine, norm in zip(self.norms, (self.block.attention_norm, self.block.network_norm), strict=True):
            mine.copy_(norm.weight)
        if label is not None:
            self.label.copy_(label)
        if self.condition is not None:
            self.condition.read()

    def begin_row(self, above: Tensor) -> None:
        """What the levels above say of a row, [w, B, C]."""
        torch.matmul(above, self.condition.matrix, out=self.said)

    def step(self, x: Tensor, t: int, j: int, of_query: Tensor, of_key: Tensor) -> Tensor:
        """Token t [B, C], which predicts column j, after this block; its key and value are kept."""
        x = x + self.label
        if self.said is not None:
            x = x + self.said[j]
        channels, products = x.shape[1:], self.products
        normed = F.layer_norm(x, channels, self.norms[0])
        made = products["query_key_value"](normed).view(len(x), 1, self.heads + 2, -1)
        q, k, v = made.split([self.heads, 1, 1], dim=2)  # [B, 1, H, d] and [B, 1, 1, d]
        self.keys[:, :, t : t + 1] = turned(k, of_key)
        self.values[:, :, t : t + 1] = v
        so_far = slice(t + 1)
        # The heads stand where queries of several places would: all see the same keys, and all of them
        q = turned(q, of_query)
        seen = F.scaled_dot_product_attention(q, self.keys[:, :, so_far], self.values[:, :, so_far])
        x = x + products["attended"](seen.reshape(x.shape))
        normed = F.layer_norm(x, channels, self.norms[1])
        return x + products["narrow"](F.gelu(products["widen"](normed)))


class CachedTransformer:
    """The `Cache` of a `Transformer`.

    Args:
        prior: in evaluation mode; its weights are read here and in each `reset`.
        labels, above, maps, dtype: as for `Prior.cache`.
    """

    def __init__(
        self,
        prior: "Transformer",
        labels: Tensor | None,
        above: Codes = (),
        *,
        maps: int,
        dtype: torch.dtype | None = None,
    ):
        self.prior, self.dtype, (height, self.width) = prior, dtype or prior.dtype, prior.level.size
        kind, channels = dict(dtype=self.dtype, device=prior.device), prior.config.channels
        tokens = prior.level.places
        self.blocks = [_CachedBlock(block, maps, self.width, tokens, self.dtype) for block in prior.blocks]
        self.embedding = torch.empty_like(prior.embedding.weight, dtype=self.dtype)
        self.head, self.norm = Product(prior.logits, self.dtype), torch.empty(channels, **kind)
        self.places = torch.empty(tokens, channels, **kind)
        self.of_queries, self.of_keys = (by.to(self.dtype) for by in prior.turns(height, self.width))
        self.content = torch.empty(maps, channels, **kind)  # of the next token
        self.above = torch.empty(height, self.width, maps, channels, **kind) if prior.above else None
        self.row = 0
        self.reset(labels, above)

    @torch.no_grad()
    def reset(self, labels: Tensor | None, above: Codes = ()) -> None:
        """Begin B maps of these labels [B], or of none for an unconditional prior, and below these codes, in
        the memory of those before."""
        prior = self.prior
        prior.check_given(labels, above)
        for block, label in zip(self.blocks, prior.label_biases(labels), strict=True):
            block.read(label)
        self.embedding.copy_(prior.embedding.weight)
        self.head.read()
        self.norm.copy_(prior.norm.weight)
        self.places.copy_(prior.places(*prior.level.size))
        self.content.copy_(prior.before(labels, len(self.content)))
        if self.above is not None:
            with prior.computing(self.dtype):
                self.above.copy_(prior.above(above).permute(2, 3, 0, 1))

    def begin_row(self, i: int) -> None:
        """What the levels above say of the row."""
        self.row = i
        for block in self.blocks if self.above is not None else ():
            block.begin_row(self.above[i])

    def logits(self, j: int) -> Tensor:
        """Logits [B, K] of column j, given all rows above and the columns put so far."""
        t = self.row * self.width + j
        x = self.content + self.places[t]
        for block in self.blocks:
            x = block.step(x, t, j, self.of_queries[:, t], self.of_keys[:, t])
        return self.head(F.layer_norm(x, x.shape[1:], self.norm))

    def put(self, j: int, codes: Tensor) -> None:
        """Make known the codes [B] of column j."""
        which = j % self.prior.level.codes_per_position
        torch.index_select(self.embedding, 0, codes + which * self.prior.K, out=self.content)
