"""Gated causal convolutions and strictly causal attention of PixelSNAIL (arXiv 1712.09763), masked by their
shape and not by a mask.

A layer sees the rows above within its reach and the places to the left in its own row:

        first layer               later layers
        . o o o .                 . o o o .       (kernel 3: one row above)
        . o X . .                 . o X . .       (X itself included: its feature was made of earlier codes)

Far away there are places that no such kernel comes to, above on the right: attention, which each block of
layers ends with, sees all earlier places wherever they stand.

Legend: B maps, C channels, h x w the map, T = h w places, r = k // 2 the reach of a kernel, H heads of d
channels.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..attention import causal_attention

HEAD = 16  # channels of a head


class CausalConv(nn.Module):
    """[B, C_in, h, w] -> [B, C_out, h, w]: the rows above and this row up to the place (or to the one before
    it if `first`), each with a kernel of just the taps that it may use."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, first: bool):
        super().__init__()
        self.reach, self.first = kernel // 2, first
        self.above = nn.Conv2d(inputs, outputs, (self.reach, kernel), padding=(0, self.reach))
        taps = self.reach if first else self.reach + 1
        self.left = nn.Conv2d(inputs, outputs, (1, taps), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        above = self.above(F.pad(x[:, :, :-1], (0, 0, self.reach, 0)))
        left = x[..., :-1] if self.first else x
        return above + self.left(F.pad(left, (self.reach, 0, 0, 0)))


def gate(x: Tensor, dim: int = 1) -> Tensor:
    """tanh of one half of the channels, which lie on `dim`, times sigmoid of the other: 2C channels -> C."""
    a, b = x.chunk(2, dim)
    return torch.tanh(a) * torch.sigmoid(b)


class GatedLayer(nn.Module):
    """x + Conv1x1(gate(CausalConv(x) + what the class and the levels above say)); the first layer, which must
    see strictly earlier places, has no x to add to."""

    def __init__(self, channels: int, kernel: int, *, first: bool, conditional: bool):
        super().__init__()
        self.first = first
        self.conv = CausalConv(channels, 2 * channels, kernel, first=first)
        self.project = nn.Conv2d(channels, channels, 1)
        self.condition = nn.Conv2d(channels, 2 * channels, 1, bias=False) if conditional else None

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        above: Tensor | None = None,
        factors: Tensor | None = None,
    ) -> Tensor:
        """Features [B, C, h, w] -> features.

        Args:
            bias: what the class adds before the gate, [B, 2C].
            above: what the levels above say of each place, [B, C, h, w].
            factors: dropout's [B, C] of the gated channels.
        """
        said = self.conv(x)
        if bias is not None:
            said = said + bias[:, :, None, None]
        if above is not None:
            said = said + self.condition(above)
        added = self.project(scaled(gate(said), factors))
        return added if self.first else x + added


def scaled(gated: Tensor, factors: Tensor | None) -> Tensor:
    """Gated channels [B, C, h, w] times dropout's factors [B, C], in their own type under autocast too."""
    return gated if factors is None else (gated * factors[:, :, None, None]).to(gated.dtype)


class Attention(nn.Module):
    """Attention of each place to those strictly before it, joined to the features through a gate.

    A query is made of the features and of where the place is (the background); a key and a value of the
    features, of the code of their place, and of where it is. The first place sees a key of zeros alone.
    """

    def __init__(self, channels: int, heads: int, places: int):
        super().__init__()
        self.heads, inner = heads, heads * HEAD
        self.query = nn.Conv2d(channels + places, inner, 1, bias=False)
        self.key_value = nn.Conv2d(2 * channels + places, 2 * inner, 1, bias=False)
        self.join = nn.Conv2d(channels + inner, 2 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(
        self,
        x: Tensor,
        codes: Tensor,
        background: Tensor,
        factors: Tensor | None = None,
    ) -> Tensor:
        """Features [B, C, h, w] -> features.

        Args:
            codes: embedded, [B, C, h, w].
            background: numbers that tell where a place is, [B, P, h, w].
            factors: dropout's [B, C] of the gated channels.
        """
        height = x.shape[2]
        apart = "b (h d) y x -> b h (y x) d"
        q = rearrange(self.query(torch.cat([x, background], 1)), apart, h=self.heads)
        of_keys = self.key_value(torch.cat([x, codes, background], 1))
        k, v = (rearrange(part, apart, h=self.heads) for part in of_keys.chunk(2, 1))
        # Moved on by one place, so that the kernel's own causal mask leaves out the place itself
        k, v = (F.pad(part[:, :, :-1], (0, 0, 1, 0)) for part in (k, v))
        seen = causal_attention(q, k, v)  # [B, H, T, d]
        seen = rearrange(seen, "b h (y x) d -> b (h d) y x", y=height)
        gated = gate(self.join(torch.cat([x, seen], 1)))
        return x + self.project(scaled(gated, factors))
