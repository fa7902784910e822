"""Convolutions that see earlier places alone, masked by their shape and not by a mask, and the gate.

For the place X, with kernel 5:

      vertical, first           vertical                  horizontal, first    horizontal
        v v v v v                 v v v v v
        v v v v v                 v v v v v
        . . X . .                 v v v v v  (row of X)     h h X . .            h h h . .

Instead of the full k x k kernel times a mask, the kernel has just the taps it may use and the input is padded
on that side. What is not `first` may read features of its own row or place, which are made of earlier codes.

Legend: B maps, C channels, h x w the map, k the kernel size (odd), r = k // 2 its reach.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class VerticalConv(nn.Module):
    """[B, C_in, h, w] -> [B, C_out, h, w]; the output of row i sees rows i-r to i (or to i-1 if `first`)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, first: bool):
        super().__init__()
        self.reach, self.first = kernel // 2, first
        rows = self.reach if first else self.reach + 1
        self.conv = nn.Conv2d(inputs, outputs, (rows, kernel), padding=(0, self.reach))

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            x = x[:, :, :-1]  # the last row is above no row
        return self.conv(F.pad(x, (0, 0, self.reach, 0)))


class HorizontalConv(nn.Module):
    """[B, C_in, h, w] -> [B, C_out, h, w]; the output of column j sees columns j-r to j (or to j-1 if
    `first`)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, first: bool, bias: bool = True):
        super().__init__()
        self.reach, self.first = kernel // 2, first
        columns = self.reach if first else self.reach + 1
        self.conv = nn.Conv2d(inputs, outputs, (1, columns), bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            x = x[..., :-1]
        return self.conv(F.pad(x, (self.reach, 0, 0, 0)))


def gate(x: Tensor, dim: int = 1, *, out: Tensor | None = None) -> Tensor:
    """tanh of one half of the channels, which lie on `dim`, times sigmoid of the other: 2C channels -> C.
    (Equation 2 of the Gated PixelCNN, arXiv 1606.05328.)

    With `out` nothing is allocated, and x is overwritten.
    """
    a, b = x.chunk(2, dim)
    if out is not None:
        return torch.mul(a.tanh_(), b.sigmoid_(), out=out)
    return torch.tanh(a) * torch.sigmoid(b)
