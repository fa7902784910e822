"""The Gated PixelCNN one code at a time, with everything that is already known kept: logits of a whole map
for the multiply-adds of ONE forward pass.

The vertical stack of row i needs only rows above it, so it runs once a row, on a ring of the last rows of
each layer. So do the class biases and the way from the vertical into the horizontal stack. What is left for
each code is the
horizontal stack at one place: for each layer two products of a batch of vectors with a matrix.

Fast PixelCNN++ (Ramachandran et al. 2017, arXiv 1704.06001) did this for pixels. The weights are those of the
layers, and so is the maths (`gate`, the order of the layers); the tests hold the two paths together, code for
code. All buffers are allocated once and reset for the next maps, the work at a column is the same on the same
memory in every row, and nothing here waits for the device.

Legend: B maps, C channels, h x w the map, k the kernel size, r = k // 2 its reach, K codes.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from vqprior.runtime.codes import Codes

from ..product import Product
from .layers import GatedLayer, gate

if TYPE_CHECKING:
    from .model import PixelCNN


def _matrix(kernel: Tensor) -> Tensor:
    """A 1x1 kernel [C_out, C_in, 1, 1] as a matrix that vectors are multiplied with from the left."""
    return kernel[:, :, 0, 0].T


class _CachedLayer:
    """One gated layer with the rows and columns that its kernels still look back at."""

    def __init__(self, layer: GatedLayer, conditional: bool, maps: int, width: int, dtype: torch.dtype):
        self.first, reach, channels = layer.first, layer.horizontal.reach, layer.project.out_channels
        kind = dict(dtype=dtype, device=layer.project.weight.device)

        # Vertical: the newest row overwrites the oldest; when the ring has turned by n rows, so must the
        # kernel's rows
        slots = reach if self.first else reach + 1
        kernel = torch.empty_like(layer.vertical.conv.weight, dtype=dtype, memory_format=torch.channels_last)
        self.kernels = [torch.empty_like(kernel) for _ in range(slots)]
        self.vertical_bias = torch.empty(2 * channels, **kind)
        self.ring = torch.empty(maps, slots, width + 2 * reach, channels, **kind)  # padded left and right
        self.slots = [self.ring[:, n, reach : reach + width] for n in range(slots)]  # each [B, w, C]
        self.turned = 0

        # Horizontal: this row of h, padded left, and views of it at each column
        columns = torch.zeros(maps, reach + width, channels, **kind)
        self.row = columns[:, reach:]  # [B, w, C]
        self.columns = self.row.unbind(1)  # each [B, C]
        # what the kernel sees, [B, slots * C]
        self.windows = [columns[:, j : j + slots].flatten(1) for j in range(width)]
        self.horizontal = torch.empty(slots * channels, 2 * channels, **kind)
        self.project = Product(layer.project, dtype)

        # From the vertical into the horizontal stack: all that is added to a column but what its row says
        self.across = torch.empty(2 * channels, 2 * channels, **kind)
        self.context = torch.empty(maps, width, 2 * channels, **kind)
        self.contexts = self.context.unbind(1)
        self.gated = torch.empty(maps, channels, **kind)
        self.horizontal_bias = torch.empty(maps if conditional else 1, 1, 2 * channels, **kind)
        # of the vertical stack
        self.label_bias = torch.empty(maps, 1, 2 * channels, **kind) if conditional else None

        # What this layer makes of the levels above, for a row: the vertical stack's 2C first
        self.condition = self.said = None
        if layer.condition is not None:
            self.condition = torch.empty(channels, 4 * channels, **kind)
            self.said = torch.empty(maps, width, 4 * channels, **kind)

    def reset(self, layer: GatedLayer, label_bias: Tensor | None) -> None:
        """Read the weights, and the biases [B, 4C] of the maps' labels; from now on the first row is the
        next."""
        vertical, horizontal = layer.vertical.conv, layer.horizontal.conv
        for n, kernel in enumerate(self.kernels):
            kernel.copy_(vertical.weight.roll(n, dims=2))
        self.vertical_bias.copy_(vertical.bias)
        # [2C, C, 1, slots] -> [slots * C, 2C]: the columns that the kernel sees, oldest first, channels
        # within
        self.horizontal.copy_(horizontal.weight[:, :, 0].permute(2, 1, 0).reshape(self.horizontal.shape))
        self.project.read(layer.project)
        if self.condition is not None:
            self.condition.copy_(_matrix(layer.condition.weight))
        self.across.copy_(_matrix(layer.vertical_to_horizontal.weight))
        self.horizontal_bias.copy_(horizontal.bias + layer.vertical_to_horizontal.bias)
        if label_bias is not None:
            v_bias, h_bias = label_bias.to(self.gated.dtype)[:, None].chunk(2, dim=-1)  # [B, 1, 2C]
            self.label_bias.copy_(v_bias)
            self.horizontal_bias.add_(h_bias)
        self.ring.zero_()
        self.turned = 0

    def newest(self) -> Tensor:
        """Where the newest row of v is to be written, [B, w, C]; the oldest was there."""
        slot = self.slots[self.turned]
        self.turned = (self.turned + 1) % len(self.slots)
        return slot

    def begin_row(self, above: Tensor | None, out: Tensor | None) -> None:
        """The vertical stack of this row: fills `context`, and writes the next layer's v, [B, w, C], to
        `out`.

        Args:
            above: what the levels above say of the row, [B * w, C].
        """
        kernel = self.kernels[self.turned]
        # [B, 2C, 1, w], channels last
        v_in = F.conv2d(self.ring.permute(0, 3, 1, 2), kernel, self.vertical_bias)
        v_in = v_in.permute(0, 2, 3, 1).reshape(self.context.shape)  # [B, w, 2C]
        torch.mm(v_in.flatten(0, 1), self.across, out=self.context.flatten(0, 1))
        self.context.add_(self.horizontal_bias)
        if above is not None:
            torch.mm(above, self.condition, out=self.said.flatten(0, 1))
            v_said, h_said = self.said.chunk(2, dim=-1)
            self.context.add_(h_said)
            v_in.add_(v_said)
        if out is not None:
            gate(v_in if self.label_bias is None else v_in.add_(self.label_bias), dim=-1, out=out)

    def step(self, j: int, out: Tensor) -> None:
        """The horizontal stack at column j, whose inputs are in `row`: writes the next layer's h there, [B,
        C], to `out`."""
        h_in = self.contexts[j].addmm_(
            self.windows[j], self.horizontal
        )  # [B, 2C], in place: it is used this once
        if self.first:
            out.copy_(self.project.bias)
        else:
            torch.add(self.columns[j], self.project.bias, out=out)
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
        embedding = torch.empty_like(prior.embedding.weight, dtype=dtype)
        # of the first, second, ... code of a position
        self.embeddings = embedding.chunk(prior.level.codes_per_position)
        self.layers = [_CachedLayer(layer, prior.classes > 0, maps, width, dtype) for layer in prior.layers]
        # of the last layer
        self.features = torch.empty(maps, embedding.shape[1], dtype=dtype, device=prior.device)
        self.hidden, self.head = Product(prior.hidden, dtype), Product(prior.logits, dtype)
        # of each row what the levels above say, [B * w, C]
        self.rows_above: tuple[Tensor | None, ...] = (None,) * prior.level.height
        if prior.above:
            size = (prior.level.height, maps * width, embedding.shape[1])
            self.rows_above = torch.empty(size, dtype=dtype, device=prior.device).unbind(0)
        self.reset(labels, above)

    @torch.no_grad()
    def reset(self, labels: Tensor | None, above: Codes = ()) -> None:
        """Begin B maps of these labels [B], or of none for an unconditional prior, and below these codes, in
        the memory of those before."""
        prior = self.prior
        prior.check_given(labels, above)
        if prior.above:
            with prior.computing(self.features.dtype):
                said = prior.above(above)  # [B, C, h, w]
            for row, of_row in zip(self.rows_above, said.unbind(2), strict=True):
                row.view(len(said), -1, said.shape[1]).copy_(of_row.transpose(1, 2))
        for own, codes in zip(
            self.embeddings, prior.embedding.weight.chunk(prior.level.codes_per_position), strict=True
        ):
            own.copy_(codes)
        for own, layer, label_bias in zip(self.layers, prior.layers, prior.label_biases(labels), strict=True):
            own.reset(layer, label_bias)
        self.hidden.read(prior.hidden)
        self.head.read(prior.logits)

    def begin_row(self, i: int) -> None:
        """Everything of the row that no code of that row has a part in."""
        for layer, following in zip(self.layers, [*self.layers[1:], None], strict=True):
            layer.begin_row(self.rows_above[i], following.newest() if following else None)

    def logits(self, j: int) -> Tensor:
        """Logits [B, K] of column j, given all rows above and the columns put so far."""
        outputs = [*(following.columns[j] for following in self.layers[1:]), self.features]
        for layer, out in zip(self.layers, outputs, strict=True):
            layer.step(j, out)
        return self.head(F.relu(self.hidden(F.relu(self.features))))

    def put(self, j: int, codes: Tensor) -> None:
        """Make known the codes [B] of column j; after the last one the row is complete."""
        first = self.layers[0]
        first.columns[j].copy_(F.embedding(codes, self.embeddings[j % len(self.embeddings)]))
        if j == len(first.columns) - 1:
            first.newest().copy_(first.row)
