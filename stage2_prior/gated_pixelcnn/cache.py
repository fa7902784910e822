"""The Gated PixelCNN one code at a time, with everything that is already known kept: logits of a whole map
for the multiply-adds of ONE forward pass.

The vertical stack of row i needs only rows above it, so it runs once a row, on a ring of the last rows of
each layer. So do the class biases and the way from the vertical into the horizontal stack. What is left for
each code is the horizontal stack at one place: for each layer two products of a batch of vectors with a
matrix.

Fast PixelCNN++ (Ramachandran et al. 2017, arXiv 1704.06001) did this for pixels. The weights are those of the
layers, and so is the maths (`gate`, the order of the layers); the tests hold the two paths together, code for
code. All buffers are allocated once and reset for the next maps, the work at a column is the same on the same
memory in every row, and nothing here waits for the device.

Legend: B maps, C channels, h x w the map, K codes.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from vqprior.runtime.codes import Codes

from ..causal import gate
from ..causal_cache import ColumnsBefore, RowsAbove
from ..product import Product
from .layers import GatedLayer

if TYPE_CHECKING:
    from .model import PixelCNN


class _CachedLayer:
    """One gated layer with the rows and columns that its kernels still look back at."""

    def __init__(self, layer: GatedLayer, conditional: bool, maps: int, width: int, dtype: torch.dtype):
        self.layer, channels = layer, layer.project.out_channels
        kind = dict(dtype=dtype, device=layer.project.weight.device)
        self.vertical = RowsAbove(layer.vertical, maps, width, dtype)
        self.horizontal = ColumnsBefore(layer.horizontal, maps, width, dtype)
        self.project = Product(layer.project, dtype)

        # What the vertical stack, the class and the levels above add to the horizontal stack at each column:
        # all that is known before the row's own codes are
        self.across = Product(layer.vertical_to_horizontal, dtype)
        self.context = torch.empty(maps, width, 2 * channels, **kind)
        self.contexts = self.context.unbind(1)
        self.gated = torch.empty(maps, channels, **kind)
        self.horizontal_bias = torch.empty(maps if conditional else 1, 1, 2 * channels, **kind)
        # of the vertical stack
        self.label_bias = torch.empty(maps, 1, 2 * channels, **kind) if conditional else None

        # What this layer makes of the levels above, for a row: the vertical stack's 2C first
        self.condition = self.said = None
        if layer.condition is not None:
            self.condition = Product(layer.condition, dtype)
            self.said = torch.empty(maps, width, 4 * channels, **kind)

    def reset(self, label_bias: Tensor | None) -> None:
        """Read the weights, and the biases [B, 4C] of the maps' labels; from now on the first row is the
        next."""
        self.vertical.reset()
        for part in (self.horizontal, self.project, self.across):
            part.read()
        if self.condition is not None:
            self.condition.read()
        self.horizontal_bias.copy_(self.layer.horizontal.conv.bias + self.layer.vertical_to_horizontal.bias)
        if label_bias is not None:
            v_bias, h_bias = label_bias.to(self.gated.dtype)[:, None].chunk(2, dim=-1)  # [B, 1, 2C]
            self.label_bias.copy_(v_bias)
            self.horizontal_bias.add_(h_bias)

    def begin_row(self, above: Tensor | None, out: Tensor | None) -> None:
        """The vertical stack of this row: fills `context`, and writes the next layer's v, [B, w, C], to
        `out`.

        Args:
            above: what the levels above say of the row, [B * w, C].
        """
        v_in = self.vertical.output()  # [B, w, 2C]
        torch.mm(v_in.flatten(0, 1), self.across.matrix, out=self.context.flatten(0, 1))
        self.context.add_(self.horizontal_bias)
        if above is not None:
            torch.mm(above, self.condition.matrix, out=self.said.flatten(0, 1))
            v_said, h_said = self.said.chunk(2, dim=-1)
            self.context.add_(h_said)
            v_in.add_(v_said)
        if out is not None:
            gate(v_in if self.label_bias is None else v_in.add_(self.label_bias), dim=-1, out=out)

    def step(self, j: int, out: Tensor) -> None:
        """The horizontal stack at column j, whose inputs are in its row: writes the next layer's h there, [B,
        C], to `out`."""
        row = self.horizontal
        # [B, 2C], in place: it is used this once
        h_in = self.contexts[j].addmm_(row.windows[j], row.matrix)
        if self.layer.first:
            out.copy_(self.project.bias)
        else:
            torch.add(row.columns[j], self.project.bias, out=out)
        out.addmm_(gate(h_in, out=self.gated), self.project.matrix)


class CachedPixelCNN:
    """The `Cache` of a `PixelCNN`.

    Args:
        prior: in evaluation mode; its weights are read here and in each `reset`.
        labels, above, maps, dtype: as for `Prior.cache`.
    """

    def __init__(
        self,
        prior: "PixelCNN",
        labels: Tensor | None,
        above: Codes = (),
        *,
        maps: int,
        dtype: torch.dtype | None = None,
    ):
        dtype, self.prior, width = dtype or prior.dtype, prior, prior.level.width
        embedding = self.embedding = torch.empty_like(prior.embedding.weight, dtype=dtype)
        # of the first, second, ... code of a position
        self.embeddings = embedding.chunk(prior.level.codes_per_position)
        self.layers = [_CachedLayer(layer, prior.classes > 0, maps, width, dtype) for layer in prior.layers]
        # of the last layer
        self.features = torch.empty(maps, embedding.shape[1], dtype=dtype, device=prior.device)
        self.hidden, self.head = Product(prior.hidden, dtype), Product(prior.logits, dtype)
        # What the levels above say
        size = (prior.level.height, maps, width, embedding.shape[1])
        self.above = torch.empty(size, dtype=dtype, device=prior.device) if prior.above else None
        self.reset(labels, above)

    @torch.no_grad()
    def reset(self, labels: Tensor | None, above: Codes = ()) -> None:
        """Begin B maps of these labels [B], or of none for an unconditional prior, and below these codes, in
        the memory of those before."""
        prior = self.prior
        prior.check_given(labels, above)
        if prior.above:
            with prior.computing(self.features.dtype):
                self.above.copy_(prior.above(above).permute(2, 0, 3, 1))
        self.embedding.copy_(prior.embedding.weight)
        for layer, label_bias in zip(self.layers, prior.label_biases(labels), strict=True):
            layer.reset(label_bias)
        self.hidden.read()
        self.head.read()

    def begin_row(self, i: int) -> None:
        """Everything of the row that no code of that row has a part in."""
        above = None if self.above is None else self.above[i].flatten(0, 1)  # [B * w, C]
        for layer, following in zip(self.layers, [*self.layers[1:], None], strict=True):
            layer.begin_row(above, following.vertical.newest() if following else None)

    def logits(self, j: int) -> Tensor:
        """Logits [B, K] of column j, given all rows above and the columns put so far."""
        outputs = [*(following.horizontal.columns[j] for following in self.layers[1:]), self.features]
        for layer, out in zip(self.layers, outputs, strict=True):
            layer.step(j, out)
        return self.head(F.relu(self.hidden(F.relu(self.features))))

    def put(self, j: int, codes: Tensor) -> None:
        """Make known the codes [B] of column j; after the last one the row is complete."""
        first, row = self.layers[0], self.layers[0].horizontal
        row.columns[j].copy_(F.embedding(codes, self.embeddings[j % len(self.embeddings)]))
        if j == len(row.columns) - 1:
            first.vertical.newest().copy_(row.row)
