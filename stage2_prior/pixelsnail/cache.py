"""PixelSNAIL one code at a time, with everything that is already known kept.

What a row takes from the rows above it is computed once a row, for all its places. For each code there are
left: of each layer the taps to the left, as a product of a batch of vectors with a matrix, and of each block
one query against the keys of all places before it. Keys and values lie in memory that is taken once; place p
writes its own at p + 1 once its code is known, and place p + 1 is the first to read them.

Legend: B maps, C channels, h x w the map, r the reach of a kernel, T = h w places, H heads of d channels.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from vqprior.runtime.codes import Codes

from ..product import Product
from .layers import HEAD, Attention, GatedLayer, gate

if TYPE_CHECKING:
    from .model import Block, PixelSNAIL


class _CachedLayer:
    """One gated layer with the rows above and the columns to the left that its kernels look back at."""

    def __init__(self, layer: GatedLayer, maps: int, width: int, dtype: torch.dtype):
        self.layer, self.first, reach = layer, layer.first, layer.conv.reach
        channels, kind = layer.project.out_channels, dict(dtype=dtype, device=layer.project.weight.device)

        # Rows above: the newest overwrites the oldest, and the kernel's rows turn with them
        kernel = torch.empty_like(layer.conv.above.weight, dtype=dtype, memory_format=torch.channels_last)
        self.kernels = [torch.empty_like(kernel) for _ in range(reach)]
        self.kernel_bias = torch.empty(2 * channels, **kind)
        self.ring = torch.empty(maps, reach, width + 2 * reach, channels, **kind)  # padded left and right
        self.slots = [self.ring[:, n, reach : reach + width] for n in range(reach)]  # each [B, w, C]
        self.turned = 0

        # This row: what the layer is given at each column, padded left, and what the kernel sees there
        columns, taps = torch.zeros(maps, reach + width, channels, **kind), reach if self.first else reach + 1
        self.row = columns[:, reach:]  # [B, w, C]
        self.columns = self.row.unbind(1)  # each [B, C]
        self.windows = [columns[:, j : j + taps].flatten(1) for j in range(width)]  # each [B, taps * C]
        self.left = torch.empty(taps * channels, 2 * channels, **kind)
        self.project = Product(layer.project, dtype)
        self.condition = Product(layer.condition, dtype) if layer.condition else None

        # All that is added to a column but what its row says
        self.context = torch.empty(maps, width, 2 * channels, **kind)
        self.contexts = self.context.unbind(1)
        self.bias = torch.zeros(maps, 1, 2 * channels, **kind)  # of the class

    def read(self, bias: Tensor | None) -> None:
        """Take over the weights, and the class's biases [B, 2C]; from now on the first row is the next."""
        conv = self.layer.conv
        for n, kernel in enumerate(self.kernels):
            kernel.copy_(conv.above.weight.roll(n, dims=2))
        self.kernel_bias.copy_(conv.above.bias)
        # [2C, C, 1, taps] -> [taps * C, 2C]: the columns that the kernel sees, oldest first
        self.left.copy_(conv.left.weight[:, :, 0].permute(2, 1, 0).reshape(self.left.shape))
        self.project.read(self.layer.project)
        if self.condition:
            self.condition.read(self.layer.condition)
        if bias is not None:
            self.bias.copy_(bias[:, None])
        self.ring.zero_()
        self.turned = 0

    def keep_row(self) -> None:
        """The row is complete: it becomes the newest of the rows above."""
        self.slots[self.turned].copy_(self.row)
        self.turned = (self.turned + 1) % len(self.slots)

    def begin_row(self, above: Tensor | None) -> None:
        """What the rows above and, of the levels above, [B * w, C], say of the row."""
        said = F.conv2d(self.ring.permute(0, 3, 1, 2), self.kernels[self.turned], self.kernel_bias)
        torch.add(said.permute(0, 2, 3, 1).reshape(self.context.shape), self.bias, out=self.context)
        if above is not None:
            self.context.add_(self.condition(above).view(self.context.shape))

    def step(self, j: int) -> Tensor:
        """Features [B, C] of column j, whose inputs are in `row`."""
        said = self.contexts[j].addmm_(self.windows[j], self.left)  # in place: it is used this once
        added = self.project(gate(said))
        return added if self.first else added.add_(self.columns[j])


class _CachedAttention:
    """The attention of one block, with the keys and values of all places whose codes are known."""

    def __init__(self, attention: Attention, maps: int, places: int, dtype: torch.dtype):
        self.attention, self.heads = attention, attention.heads
        channels, inner = attention.project.out_channels, attention.heads * HEAD
        kind = dict(dtype=dtype, device=attention.project.weight.device)
        self.keys, self.values = torch.zeros(2, maps, self.heads, places + 1, HEAD, **kind)
        self.query, self.key_value = Product(attention.query, dtype), Product(attention.key_value, dtype)
        self.join, self.project = Product(attention.join, dtype), Product(attention.project, dtype)
        # What the places say of queries, and of keys and values
        self.of_places = torch.empty(places, inner, **kind), torch.empty(places, 2 * inner, **kind)
        self.features = torch.empty(maps, channels, **kind)  # of the place whose code is not known yet

    def read(self, background: Tensor) -> None:
        """Take over the weights, and the numbers of each place [T, P]."""
        attention = self.attention
        for product, layer in (
            (self.query, attention.query),
            (self.key_value, attention.key_value),
            (self.join, attention.join),
            (self.project, attention.project),
        ):
            product.read(layer)
        numbers = background.shape[1]
        for of_places, product in zip(self.of_places, (self.query, self.key_value), strict=True):
            torch.mm(background, product.matrix[-numbers:], out=of_places)

    def step(self, x: Tensor, t: int) -> Tensor:
        """Features [B, C] of place t -> features, given those of the places before it."""
        self.features.copy_(x)
        channels, so_far = x.shape[1], slice(t + 1)
        q = torch.addmm(self.of_places[0][t], x, self.query.matrix[:channels])
        q = q.view(len(x), self.heads, 1, HEAD)
        seen = F.scaled_dot_product_attention(q, self.keys[:, :, so_far], self.values[:, :, so_far])
        joined = torch.addmm(self.join.bias, x, self.join.matrix[:channels])
        joined.addmm_(seen.reshape(len(x), -1), self.join.matrix[channels:])
        return self.project(gate(joined)).add_(x)

    def keep(self, embedded: Tensor, t: int) -> None:
        """The code of place t is known, [B, C] embedded: its key and value."""
        channels = embedded.shape[1]
        made = torch.addmm(self.of_places[1][t], self.features, self.key_value.matrix[:channels])
        made.addmm_(embedded, self.key_value.matrix[channels : 2 * channels])
        k, v = made.view(len(made), 2, self.heads, HEAD).unbind(1)
        self.keys[:, :, t + 1] = k
        self.values[:, :, t + 1] = v


class _CachedBlock:
    """Layers, their attention, and the way to the output."""

    def __init__(self, block: "Block", maps: int, height: int, width: int, dtype: torch.dtype):
        self.block = block
        self.layers = [_CachedLayer(layer, maps, width, dtype) for layer in block.layers]
        self.attention = _CachedAttention(block.attention, maps, height * width, dtype)
        self.skip = Product(block.skip, dtype)


class CachedPixelSNAIL:
    """The `Cache` of a `PixelSNAIL`.

    Args:
        prior: in evaluation mode; its weights are read here and in each `reset`.
        labels, above, maps, dtype: as for `Prior.cache`.
    """

    def __init__(
        self,
        prior: "PixelSNAIL",
        labels: Tensor | None,
        above: Codes = (),
        *,
        maps: int,
        dtype: torch.dtype | None = None,
    ):
        self.prior, self.dtype, (height, self.width) = prior, dtype or prior.dtype, prior.level.size
        channels, kind = prior.config.channels, dict(dtype=self.dtype, device=prior.device)
        self.embedding = torch.empty_like(prior.embedding.weight, dtype=self.dtype)
        self.blocks = [_CachedBlock(block, maps, height, self.width, self.dtype) for block in prior.blocks]
        self.layers = [layer for block in self.blocks for layer in block.layers]
        self.head, self.out = Product(prior.logits, self.dtype), torch.empty(maps, channels, **kind)
        self.rows_above: tuple[Tensor | None, ...] = (None,) * height  # of the levels above, [B * w, C] each
        if prior.above:
            self.rows_above = torch.empty(height, maps * self.width, channels, **kind).unbind(0)
        self.i = 0
        self.reset(labels, above)

    @torch.no_grad()
    def reset(self, labels: Tensor | None, above: Codes = ()) -> None:
        """Begin B maps of these labels [B], or of none for an unconditional prior, and below these codes, in
        the memory of those before."""
        prior = self.prior
        prior.check_given(labels, above)
        self.embedding.copy_(prior.embedding.weight)
        self.head.read(prior.logits)
        background = prior.background(*prior.level.size).flatten(1).T.to(self.dtype)  # [T, P]
        for mine in self.blocks:
            mine.attention.read(background)
            mine.skip.read(mine.block.skip)
        for layer, bias in zip(self.layers, prior.label_biases(labels), strict=True):
            layer.read(bias)
        if prior.above:
            with prior.computing(self.dtype):
                said = prior.above(above)  # [B, C, h, w]
            for row, of_row in zip(self.rows_above, said.unbind(2), strict=True):
                row.view(len(said), -1, said.shape[1]).copy_(of_row.transpose(1, 2))

    def begin_row(self, i: int) -> None:
        """Everything of the row that no code of that row has a part in."""
        self.i = i
        for layer in self.layers:
            if i:
                layer.keep_row()
            layer.begin_row(self.rows_above[i])

    def logits(self, j: int) -> Tensor:
        """Logits [B, K] of column j, given all rows above and the columns put so far."""
        t, following = self.i * self.width + j, iter([*self.layers[1:], None])
        self.out.zero_()
        for block in self.blocks:
            for layer in block.layers:
                x = layer.step(j)
                last = layer is block.layers[-1]
                if last:
                    x = block.attention.step(x, t)
                if (after := next(following)) is not None:
                    after.columns[j].copy_(x)
            self.out.add_(block.skip(x))
        return self.head(F.relu(self.out))

    def put(self, j: int, codes: Tensor) -> None:
        """Make known the codes [B] of column j."""
        which = j % self.prior.level.codes_per_position
        embedded = F.embedding(codes + which * self.prior.K, self.embedding)
        self.layers[0].columns[j].copy_(embedded)
        for block in self.blocks:
            block.attention.keep(embedded, self.i * self.width + j)
