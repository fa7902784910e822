"""The Gated PixelCNN one code at a time, with everything that is already known kept: logits of a whole map for the
multiply-adds of ONE forward pass.

The vertical stack of row i needs only rows above it, so it runs once a row, on a ring of the last rows of each layer.
So do the class biases and the way from the vertical into the horizontal stack. What is left for each code is the
horizontal stack at one place: for each layer two products of a batch of vectors with a matrix.

Fast PixelCNN++ (Ramachandran et al. 2017, arXiv 1704.06001) did this for pixels. The weights are those of the layers,
and so is the maths (`gate`, the order of the layers); the tests hold the two paths together, code for code. All buffers
are allocated once, and nothing here waits for the device.

Legend: B maps, C channels, h x w the map, k the kernel size, r = k // 2 its reach, K codes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .layers import GatedLayer, gate
from .pixelcnn import PixelCNN


def _matrix(kernel: Tensor) -> Tensor:
    """A 1x1 kernel [C_out, C_in, 1, 1] as a matrix that vectors are multiplied with from the left."""
    return kernel[:, :, 0, 0].T.contiguous()


class _CachedLayer:
    """One gated layer with the rows and columns that its kernels still look back at."""

    def __init__(
        self, layer: GatedLayer, labels: Tensor | None, maps: int, width: int, dtype: torch.dtype, device: torch.device
    ):
        self.first, reach, channels = layer.first, layer.horizontal.reach, layer.project.out_channels
        zeros = dict(dtype=dtype, device=device)

        # Vertical: the newest row overwrites the oldest; when the ring has turned by n rows, so must the kernel's rows
        slots = reach + (not self.first)
        kernel = layer.vertical.conv.weight.to(dtype)
        self.kernels = [kernel.roll(n, dims=2).contiguous(memory_format=torch.channels_last) for n in range(slots)]
        self.vertical_bias = layer.vertical.conv.bias.to(dtype)
        self.ring = torch.zeros(maps, slots, width + 2 * reach, channels, **zeros)  # padded left and right
        self.slots = [self.ring[:, n, reach : reach + width] for n in range(slots)]  # each [B, w, C]
        self.turned = 0

        # Horizontal: this row of h, padded left, and views of it at each column
        columns = torch.zeros(maps, reach + width, channels, **zeros)
        self.row = columns[:, reach:]  # [B, w, C]
        self.columns = self.row.unbind(1)  # each [B, C]
        self.windows = [columns[:, j : j + slots].flatten(1) for j in range(width)]  # what the kernel sees, [B, slots * C]
        # [2C, C, 1, slots] -> [slots * C, 2C]: the columns that the kernel sees, oldest first, channels within
        self.horizontal = layer.horizontal.conv.weight[:, :, 0].permute(2, 1, 0).reshape(-1, 2 * channels).to(dtype)
        self.project, self.project_bias = _matrix(layer.project.weight).to(dtype), layer.project.bias.to(dtype)

        # From the vertical into the horizontal stack: all that is added to a column but what its row says
        self.across = _matrix(layer.vertical_to_horizontal.weight).to(dtype)
        self.context = torch.empty(maps, width, 2 * channels, **zeros)
        self.contexts = self.context.unbind(1)
        self.gated = torch.empty(maps, channels, **zeros)
        bias = layer.horizontal.conv.bias + layer.vertical_to_horizontal.bias
        self.horizontal_bias, self.label_bias = bias.to(dtype), None
        if layer.label_bias is not None:
            self.label_bias, h_bias = layer.label_bias(labels).to(dtype)[:, None].chunk(2, dim=-1)  # [B, 1, 2C]
            self.horizontal_bias = self.horizontal_bias + h_bias

    def newest(self) -> Tensor:
        """Where the newest row of v is to be written, [B, w, C]; the oldest was there."""
        slot = self.slots[self.turned]
        self.turned = (self.turned + 1) % len(self.slots)
        return slot

    def begin_row(self, out: Tensor | None) -> None:
        """The vertical stack of this row: fills `context`, and writes the next layer's v, [B, w, C], to `out`."""
        kernel = self.kernels[self.turned]
        v_in = F.conv2d(self.ring.permute(0, 3, 1, 2), kernel, self.vertical_bias)  # [B, 2C, 1, w], channels last
        v_in = v_in.permute(0, 2, 3, 1).reshape(self.context.shape)  # [B, w, 2C]
        torch.mm(v_in.flatten(0, 1), self.across, out=self.context.flatten(0, 1))
        self.context.add_(self.horizontal_bias)
        if out is not None:
            gate(v_in if self.label_bias is None else v_in.add_(self.label_bias), dim=-1, out=out)

    def step(self, j: int, out: Tensor) -> None:
        """The horizontal stack at column j, whose inputs are in `row`: writes the next layer's h there, [B, C], to `out`."""
        h_in = self.contexts[j].addmm_(self.windows[j], self.horizontal)  # [B, 2C], in place: it is used this once
        if self.first:
            out.copy_(self.project_bias)
        else:
            torch.add(self.columns[j], self.project_bias, out=out)
        out.addmm_(gate(h_in, out=self.gated), self.project)


class CachedPixelCNN:
    """Logits of one place after the other, in raster order.

    For each row: `begin_row()`, then for each column j `logits(j)` and `put(j, codes)`.

    Args:
        prior: in evaluation mode; its weights are read once, here.
        labels: [B] int64, or None for an unconditional prior.
        maps: B.
        width: w of the maps.
        dtype: of weights and activations; that of the prior unless given.
    """

    def __init__(self, prior: PixelCNN, labels: Tensor | None, *, maps: int, width: int, dtype: torch.dtype | None = None):
        dtype, device = dtype or prior.embedding.weight.dtype, prior.device
        # Of the first, second, ... code of a position
        self.embeddings = prior.embedding.weight.to(dtype).chunk(prior.codes_per_position)
        self.layers = [_CachedLayer(layer, labels, maps, width, dtype, device) for layer in prior.layers]
        self.features = torch.empty(maps, self.embeddings[0].shape[1], dtype=dtype, device=device)  # of the last layer
        self.hidden, self.hidden_bias = _matrix(prior.hidden.weight).to(dtype), prior.hidden.bias.to(dtype)
        self.head, self.head_bias = _matrix(prior.logits.weight).to(dtype), prior.logits.bias.to(dtype)

    def begin_row(self) -> None:
        """Everything of the next row that no code of that row has a part in."""
        for layer, following in zip(self.layers, [*self.layers[1:], None]):
            layer.begin_row(following and following.newest())

    def logits(self, j: int) -> Tensor:
        """Logits [B, K] of column j, given all rows above and the columns put so far."""
        outputs = [*(following.columns[j] for following in self.layers[1:]), self.features]
        for layer, out in zip(self.layers, outputs):
            layer.step(j, out)
        hidden = torch.addmm(self.hidden_bias, F.relu(self.features), self.hidden)
        return torch.addmm(self.head_bias, F.relu(hidden), self.head)

    def put(self, j: int, codes: Tensor) -> None:
        """Make known the codes [B] of column j; after the last one the row is complete."""
        first = self.layers[0]
        first.columns[j].copy_(F.embedding(codes, self.embeddings[j % len(self.embeddings)]))
        if j == len(first.columns) - 1:
            first.newest().copy_(first.row)
