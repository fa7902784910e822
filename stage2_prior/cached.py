"""The Gated PixelCNN one code at a time, with everything that is already known kept: logits of a whole map for the
multiply-adds of ONE forward pass.

The vertical stack of row i needs only rows above it, so it runs once a row, on a window of the last rows of each layer.
So do the class biases and the way from the vertical into the horizontal stack. What is left for each code is the
horizontal stack at one place: for each layer two products of a batch of vectors with a matrix.

Fast PixelCNN++ (Ramachandran et al. 2017, arXiv 1704.06001) did this for pixels. The weights are those of the layers,
and so is the maths (`gate`, the order of the layers); the tests hold the two paths together, code for code.

Legend: B maps, C channels, h x w the map, k the kernel size, r = k // 2 its reach, K codes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .layers import GatedLayer, gate
from .pixelcnn import PixelCNN


class _CachedLayer:
    """One gated layer with the rows and columns that its kernels still look back at."""

    def __init__(
        self, layer: GatedLayer, labels: Tensor | None, maps: int, width: int, dtype: torch.dtype, device: torch.device
    ):
        self.first, self.reach = layer.first, layer.horizontal.reach
        self.vertical = layer.vertical.conv.weight.to(dtype)
        self.vertical_bias = layer.vertical.conv.bias.to(dtype)
        channels = layer.project.out_channels
        # [2C, C, 1, r (+1)] -> [(r (+1)) * C, 2C]: the columns that the kernel sees, oldest first, channels within
        self.horizontal = layer.horizontal.conv.weight[:, :, 0].permute(2, 1, 0).reshape(-1, 2 * channels).to(dtype)
        self.across = layer.vertical_to_horizontal.weight[:, :, 0, 0].T.contiguous().to(dtype)
        self.project = layer.project.weight[:, :, 0, 0].T.contiguous().to(dtype)
        self.project_bias = layer.project.bias.to(dtype)
        bias = layer.horizontal.conv.bias + layer.vertical_to_horizontal.bias
        self.horizontal_bias = bias.to(dtype).expand(maps, -1)
        self.label_bias = None
        if layer.label_bias is not None:
            self.label_bias, h_bias = layer.label_bias(labels).to(dtype).chunk(2, dim=1)
            self.horizontal_bias = self.horizontal_bias + h_bias
        rows = self.reach + (not self.first)
        padded = torch.zeros(maps, channels, rows, width + 2 * self.reach, dtype=dtype, device=device)
        self.rows = padded.contiguous(memory_format=torch.channels_last)  # the last rows of v, padded left and right
        self.columns = torch.zeros(maps, self.reach + width, channels, dtype=dtype, device=device)  # this row of h, padded left
        self.context = torch.empty(width, maps, 2 * channels, dtype=dtype, device=device)  # all but h, for each column

    def push_row(self, row: Tensor) -> None:
        """Take the newest row of v, [B, C, w]; the oldest is forgotten."""
        if self.rows.shape[2] > 1:
            self.rows[:, :, :-1] = self.rows[:, :, 1:].clone()
        self.rows[:, :, -1, self.reach : self.reach + row.shape[-1]] = row

    def begin_row(self) -> Tensor:
        """The vertical stack of this row: fills `context` and gives the next layer's v, [B, C, w]."""
        v_in = F.conv2d(self.rows, self.vertical, self.vertical_bias)  # [B, 2C, 1, w]
        flat = v_in[:, :, 0].permute(2, 0, 1)  # [w, B, 2C]
        torch.matmul(flat, self.across, out=self.context)
        self.context += self.horizontal_bias
        if self.label_bias is not None:
            v_in = v_in + self.label_bias[:, :, None, None]
        return gate(v_in)[:, :, 0]

    def step(self, j: int) -> Tensor:
        """The horizontal stack at column j, whose inputs are in `columns`: the next layer's h there, [B, C]."""
        reach, columns = self.reach, self.columns
        window = columns[:, j : j + reach + (not self.first)].flatten(1)  # [B, (r (+1)) * C]
        out = torch.addmm(self.project_bias, gate(torch.addmm(self.context[j], window, self.horizontal)), self.project)
        return out if self.first else out.add_(columns[:, j + reach])


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
        self.embedding = prior.embedding.weight.to(dtype)
        self.layers = [_CachedLayer(layer, labels, maps, width, dtype, device) for layer in prior.layers]
        self.hidden = prior.hidden.weight[:, :, 0, 0].T.contiguous().to(dtype), prior.hidden.bias.to(dtype)
        self.head = prior.logits.weight[:, :, 0, 0].T.contiguous().to(dtype), prior.logits.bias.to(dtype)
        self.row = torch.zeros(maps, self.embedding.shape[1], width, dtype=dtype, device=device)  # embedded codes of this row

    def begin_row(self) -> None:
        """Everything of the next row that no code of that row has a part in."""
        first, *others = self.layers
        v = first.begin_row()
        for layer in others:
            layer.push_row(v)
            v = layer.begin_row()

    def logits(self, j: int) -> Tensor:
        """Logits [B, K] of column j, given all rows above and the columns put so far."""
        for layer, following in zip(self.layers, [*self.layers[1:], None]):
            h = layer.step(j)
            if following:
                following.columns[:, j + following.reach] = h
        hidden = F.relu(torch.addmm(self.hidden[1], F.relu(h), self.hidden[0]))
        return torch.addmm(self.head[1], hidden, self.head[0])

    def put(self, j: int, codes: Tensor) -> None:
        """Make known the codes [B] of column j; after the last one the row is complete."""
        embedded = F.embedding(codes, self.embedding)
        first = self.layers[0]
        first.columns[:, j + first.reach] = embedded
        self.row[:, :, j] = embedded
        if j == self.row.shape[-1] - 1:
            first.push_row(self.row)
