"""The convolutions of `causal.py` one row, or one place, after the other, with what they still look back at
kept.

All memory is taken once; the weights are read from the layers themselves, at the beginning of the maps. The
work at a column is the same on the same memory in every row.

Legend: B maps, C channels, h x w the map, k the kernel size, r = k // 2 its reach.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .causal import HorizontalConv, VerticalConv


class RowsAbove:
    """A `VerticalConv` one row after the other, on a ring of the last rows.

    The newest row overwrites the oldest; when the ring has turned by n rows, so must the kernel's rows.
    """

    def __init__(self, conv: VerticalConv, maps: int, width: int, dtype: torch.dtype):
        self.conv, weight, reach = conv.conv, conv.conv.weight, conv.reach
        kind = dict(dtype=dtype, device=weight.device)
        kernel = torch.empty_like(weight, dtype=dtype, memory_format=torch.channels_last)
        rows = weight.shape[2]
        self.kernels = [torch.empty_like(kernel) for _ in range(rows)]
        self.bias = torch.empty(weight.shape[0], **kind)
        # padded left and right
        self.ring = torch.empty(maps, rows, width + 2 * reach, weight.shape[1], **kind)
        self.slots = [self.ring[:, n, reach : reach + width] for n in range(rows)]  # each [B, w, C]
        self.turned = 0

    def reset(self) -> None:
        """Read the weights of now; from now on the first row is the next."""
        for n, kernel in enumerate(self.kernels):
            kernel.copy_(self.conv.weight.roll(n, dims=2))
        self.bias.copy_(self.conv.bias)
        self.ring.zero_()
        self.turned = 0

    def newest(self) -> Tensor:
        """Where the newest row is to be written, [B, w, C]; the oldest was there."""
        slot = self.slots[self.turned]
        self.turned = (self.turned + 1) % len(self.slots)
        return slot

    def output(self) -> Tensor:
        """What the convolution makes of the rows written so far, [B, w, C_out], in memory of its own."""
        kernel = self.kernels[self.turned]
        # [B, C_out, 1, w], channels last
        row = F.conv2d(self.ring.permute(0, 3, 1, 2), kernel, self.bias)
        maps, channels, _, width = row.shape
        return row.permute(0, 2, 3, 1).reshape(maps, width, channels)


class ColumnsBefore:
    """A `HorizontalConv` one place after the other: its input of this row, padded left, and its kernel as a
    matrix."""

    def __init__(self, conv: HorizontalConv, maps: int, width: int, dtype: torch.dtype):
        self.conv, weight = conv.conv, conv.conv.weight  # [C_out, C, 1, slots]
        outputs, channels, _, slots = weight.shape
        kind = dict(dtype=dtype, device=weight.device)
        columns = torch.zeros(maps, conv.reach + width, channels, **kind)
        self.row = columns[:, conv.reach :]  # [B, w, C]
        self.columns = self.row.unbind(1)  # each [B, C]
        # what the kernel sees at each column, [B, slots * C]
        self.windows = [columns[:, j : j + slots].flatten(1) for j in range(width)]
        self.matrix = torch.empty(slots * channels, outputs, **kind)

    def read(self) -> None:
        """Take over the weights of now but for the bias."""
        # [C_out, C, 1, slots] -> [slots * C, C_out]: the columns that the kernel sees, oldest first, channels
        # within
        self.matrix.copy_(self.conv.weight[:, :, 0].permute(2, 1, 0).reshape(self.matrix.shape))
