"""PixelSNAIL one code at a time, with everything that is already known kept: logits of a whole map for the
multiply-adds of one forward pass.

What a row takes from the rows above it is computed once a row, for all its places. For each code there are
left: of each layer the taps to the left and the projection, two products of a batch of vectors with a matrix;
of each block one query against what all earlier places offer. Their keys and values lie in memory that is
taken once. Place t writes what it offers at t + 1 when its code becomes known, and reads 0 to t: what is
strictly earlier, and before that what is learnt.

A code is put by one lookup: the tables hold, beside its embedding, what it adds to the keys and values of
each block. Nothing is allocated for a code but what attention reads and the logits, and nothing waits for the
device.

Legend: B maps, C channels, h x w the map, T = h w places, H heads of d numbers, A = H * d, K codes.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from vqprior.runtime.codes import Codes

from ..causal import gate
from ..causal_cache import ColumnsBefore, RowsAbove
from ..product import Product
from .layers import HEAD, Attention, Gate, GatedLayer

if TYPE_CHECKING:
    from .model import Block, PixelSNAIL


class _CachedGate:
    """The end of a layer at one place, and all that is added before the gate which is known before the row's
    own codes are."""

    def __init__(self, of: Gate, maps: int, width: int, dtype: torch.dtype):
        channels, kind = of.project.out_channels, dict(dtype=dtype, device=of.project.weight.device)
        self.project = Product(of.project, dtype)
        self.condition = Product(of.condition, dtype) if of.condition else None
        self.label = torch.zeros(maps, 2 * channels, **kind)  # what the class adds
        self.contexts = torch.empty(width, maps, 2 * channels, **kind)  # of each column
        self.gated = torch.empty(maps, channels, **kind)

    def read(self, label: Tensor | None) -> None:
        """Take over the weights, and what the class adds, [B, 2C]."""
        self.project.read()
        if self.condition:
            self.condition.read()
        if label is not None:
            self.label.copy_(label)

    def begin_row(self, made: Tensor, above: Tensor | None) -> None:
        """Fill the contexts of the row.

        Args:
            made: what is known of what the layer makes, [w, B, 2C].
            above: what the levels above say, [w * B, C].
        """
        torch.add(made, self.label, out=self.contexts)
        if above is not None:
            self.contexts.flatten(0, 1).addmm_(above, self.condition.matrix)

    def add(self, x: Tensor | None, made: Tensor, out: Tensor) -> None:
        """The stream x [B, C], if it has begun, and what the layer made, [B, 2C], which is overwritten: the
        stream, to `out`."""
        gated = gate(made, dim=1, out=self.gated)
        if x is None:
            torch.mm(gated, self.project.matrix, out=out)
        else:
            torch.addmm(x, gated, self.project.matrix, out=out)


class _CachedLayer:
    """One gated layer with the rows above and the columns to the left that its kernels look back at."""

    def __init__(self, layer: GatedLayer, maps: int, width: int, dtype: torch.dtype):
        self.first = layer.first
        self.above = RowsAbove(layer.conv.above, maps, width, dtype)
        self.left = ColumnsBefore(layer.conv.left, maps, width, dtype)
        self.gate = _CachedGate(layer.gate, maps, width, dtype)

    def read(self, label: Tensor | None) -> None:
        """Take over the weights, and what the class adds; from now on the first row is the next."""
        self.above.reset()
        self.left.read()
        self.gate.read(label)

    def begin_row(self, i: int, above: Tensor | None) -> None:
        """All of row i that no code of the row has a part in; the row before it is complete."""
        if i:
            self.above.newest().copy_(self.left.row)
        self.gate.begin_row(self.above.output().transpose(0, 1), above)

    def step(self, j: int, out: Tensor) -> None:
        """The stream [B, C] at column j, to `out`."""
        # in place: the context is used this once
        made = self.gate.contexts[j].addmm_(self.left.windows[j], self.left.matrix)
        self.gate.add(None if self.first else self.left.columns[j], made, out)


class _CachedAttention:
    """The attention of one block, with the keys and values of all places whose codes are known."""

    def __init__(self, of: Attention, maps: int, size: tuple[int, int], dtype: torch.dtype):
        (height, width), inner, channels = size, of.width, of.gate.project.out_channels
        kind = dict(dtype=dtype, device=of.join.weight.device)
        self.of, self.gate = of, _CachedGate(of.gate, maps, width, dtype)
        self.of_feature, self.join = Product(of.of_feature, dtype), Product(of.join, dtype)
        self.of_places = torch.empty(height * width, 3 * inner, **kind)  # with the bias of `of_feature`
        offered = torch.empty(2, maps, of.heads, height * width + 1, HEAD, **kind)
        self.keys, self.values = offered
        self.slots = offered.unbind(3)  # each [2, B, H, d]

        # Of the place whose code is not known yet
        own = torch.empty(maps, 3 * inner, **kind)
        self.own, self.query = own, own[:, :inner].view(maps, of.heads, 1, HEAD)
        self.offer = own[:, inner:].view(maps, 2, of.heads, HEAD).transpose(0, 1)  # [2, B, H, d]
        self.joined = torch.empty(maps, channels + inner, **kind)
        self.features, self.read_here = self.joined.split([channels, inner], dim=1)
        self.made = torch.empty(maps, 2 * channels, **kind)

    def read(self, places: Tensor, label: Tensor | None) -> None:
        """Take over the weights, the numbers of each place [T, P], and what the class adds; from now on the
        first place is the next."""
        self.gate.read(label)
        self.of_feature.read()
        self.join.read()
        self.of_places.copy_(self.of.of_place(places) + self.of.of_feature.bias)
        self.slots[0].copy_(self.of.before.view(2, 1, self.of.heads, HEAD))

    def begin_row(self, above: Tensor | None) -> None:
        """What is added before the gate, of the levels above too."""
        self.gate.begin_row(self.join.bias.expand_as(self.gate.contexts), above)

    def step(self, t: int, j: int, out: Tensor) -> None:
        """The stream [B, C] at place t, in column j, whose features are there: to `out`."""
        torch.addmm(self.of_places[t], self.features, self.of_feature.matrix, out=self.own)
        keys, values = self.keys[:, :, : t + 1], self.values[:, :, : t + 1]
        read = F.scaled_dot_product_attention(self.query, keys, values)  # [B, H, 1, d]
        self.read_here.copy_(read.reshape(self.read_here.shape))
        torch.addmm(self.gate.contexts[j], self.joined, self.join.matrix, out=self.made)
        self.gate.add(self.features, self.made, out)

    def put(self, t: int, of_code: Tensor) -> None:
        """The code of place t is known, and adds this, [2, B, H, d], to what the place offers."""
        torch.add(self.offer, of_code, out=self.slots[t + 1])


class _CachedBlock:
    """Gated layers, then attention."""

    def __init__(self, block: "Block", maps: int, size: tuple[int, int], dtype: torch.dtype):
        self.layers = [_CachedLayer(layer, maps, size[1], dtype) for layer in block.layers]
        self.attention = _CachedAttention(block.attention, maps, size, dtype)

    def given(self, j: int) -> Tensor:
        """Where what the block is given at column j is written, [B, C]."""
        return self.layers[0].left.columns[j]

    def begin_row(self, i: int, above: Tensor | None) -> None:
        """All of row i that no code of the row has a part in."""
        for layer in self.layers:
            layer.begin_row(i, above)
        self.attention.begin_row(above)

    def step(self, t: int, j: int, out: Tensor) -> None:
        """The stream [B, C] at place t, in column j: to `out`."""
        following = (layer.left.columns[j] for layer in self.layers[1:])
        for layer, to in zip(self.layers, (*following, self.attention.features), strict=True):
            layer.step(j, to)
        self.attention.step(t, j, out)


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
        self.prior, self.dtype, level = prior, dtype or prior.dtype, prior.level
        self.blocks = [_CachedBlock(block, maps, level.size, self.dtype) for block in prior.blocks]
        channels, kind = prior.config.channels, dict(dtype=self.dtype, device=prior.device)
        self.skips, self.head = Product(prior.skips, self.dtype), Product(prior.logits, self.dtype)
        self.ends = torch.empty(maps, len(self.blocks) * channels, **kind)  # of all blocks, side by side
        self.hidden = torch.empty(maps, channels, **kind)

        # What a code of the first, second, ... of a position adds: to the stream, and to what blocks offer
        sizes = [channels, *(2 * block.attention.width for block in prior.blocks)]
        self.tables = torch.empty(level.codes_per_position, level.K, sum(sizes), **kind)
        self.found = torch.empty(maps, sum(sizes), **kind)
        self.embedded, *offers = self.found.split(sizes, dim=1)
        self.of_codes = [offer.view(maps, 2, -1, HEAD).transpose(0, 1) for offer in offers]

        # What the levels above say
        self.above = torch.empty(*level.size, maps, channels, **kind) if prior.above else None
        self.i = 0
        self.reset(labels, above)

    @torch.no_grad()
    def reset(self, labels: Tensor | None, above: Codes = ()) -> None:
        """Begin B maps of these labels [B], or of none for an unconditional prior, and below these codes, in
        the memory of those before."""
        prior = self.prior
        prior.check_given(labels, above)
        self.skips.read()
        self.head.read()
        codes = prior.embedding.weight
        offers = [block.attention.of_code(codes) for block in prior.blocks]
        self.tables.copy_(torch.cat([codes, *offers], dim=1).view(self.tables.shape))
        places, biases = prior.places(*prior.level.size).flatten(0, 1), iter(prior.label_biases(labels))
        for block in self.blocks:
            for layer in block.layers:
                layer.read(next(biases))
            block.attention.read(places, next(biases))
        if prior.above:
            with prior.computing(self.dtype):
                self.above.copy_(prior.above(above).permute(2, 3, 0, 1))

    def begin_row(self, i: int) -> None:
        """Everything of the row that no code of that row has a part in."""
        self.i = i
        above = None if self.above is None else self.above[i].flatten(0, 1)  # [w * B, C]
        for block in self.blocks:
            block.begin_row(i, above)

    def logits(self, j: int) -> Tensor:
        """Logits [B, K] of column j, given all rows above and the columns put so far."""
        ends = self.ends.chunk(len(self.blocks), dim=1)
        for block, following, end in zip(self.blocks, (*self.blocks[1:], None), ends, strict=True):
            block.step(self._place(j), j, end)
            if following:
                following.given(j).copy_(end)
        torch.addmm(self.skips.bias, self.ends, self.skips.matrix, out=self.hidden)
        return self.head(self.hidden.relu_())

    def put(self, j: int, codes: Tensor) -> None:
        """Make known the codes [B] of column j."""
        torch.index_select(self.tables[j % len(self.tables)], 0, codes, out=self.found)
        self.blocks[0].given(j).copy_(self.embedded)
        for block, of_code in zip(self.blocks, self.of_codes, strict=True):
            block.attention.put(self._place(j), of_code)

    def _place(self, j: int) -> int:
        """The place of column j of the row, in raster order."""
        return self.i * self.prior.level.width + j
