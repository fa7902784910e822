"""The layers of PixelSNAIL (arXiv 1712.09763): gated causal convolutions, and attention to all earlier
places.

All read and write one stream of features, in which the feature of a place is made of strictly earlier codes
in raster order. So a layer may read the feature of its own place X. Codes themselves are read by the first
layer, and by the keys and values of attention, which leave out the code of X:

      first layer           later layers          attention
        . v v v .             . v v v .             * * * * *
        . h X . .             . h h . .             * * X . .       (kernel 3: one row above)

Far away, above on the right, there are places that no convolution comes to. Attention, with which each block
of layers ends, sees all earlier ones wherever they stand.

Legend: B maps, C channels, h x w the map, T = h w places, P numbers of a place, H heads of d numbers,
A = H * d.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from ..attention import causal_attention
from ..causal import HorizontalConv, VerticalConv, gate

HEAD = 16  # numbers of a head


class Told(NamedTuple):
    """What a layer is told besides the stream.

    Attributes:
        label: what the class adds before the gate, [B, 2C].
        above: what the levels above say of each place, [B, C, h, w].
        factors: dropout's [B, C] of the gated channels.
    """

    label: Tensor | None = None
    above: Tensor | None = None
    factors: Tensor | None = None


class CausalConv(nn.Module):
    """[B, C_in, h, w] -> [B, C_out, h, w]: the rows above, and this row up to the place (to the one before it
    if `first`)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, first: bool):
        super().__init__()
        self.above = VerticalConv(inputs, outputs, kernel, first=True)
        self.left = HorizontalConv(inputs, outputs, kernel, first=first, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.above(x) + self.left(x)


class Gate(nn.Module):
    """How every layer ends, in what it adds to the stream: what it made, and what it is told, through a gate
    and a projection.

    Args:
        conditional: whether it is told what the levels above say of each place.
    """

    def __init__(self, channels: int, *, conditional: bool):
        super().__init__()
        self.project = nn.Conv2d(channels, channels, 1, bias=False)
        self.condition = nn.Conv2d(channels, 2 * channels, 1, bias=False) if conditional else None

    def forward(self, made: Tensor, told: Told) -> Tensor:
        """[B, 2C, h, w] -> [B, C, h, w]."""
        if told.label is not None:
            made = made + told.label[:, :, None, None]
        if told.above is not None:
            made = made + self.condition(told.above)
        gated = gate(made)
        if told.factors is not None:  # in fp32, under autocast too
            gated = (gated * told.factors[:, :, None, None]).to(gated.dtype)
        return self.project(gated)


class GatedLayer(nn.Module):
    """A causal convolution through a gate; the first one, which must see strictly earlier places, begins the
    stream, and the others add to it."""

    def __init__(self, channels: int, kernel: int, *, first: bool, conditional: bool):
        super().__init__()
        self.first = first
        self.conv = CausalConv(channels, 2 * channels, kernel, first=first)
        self.gate = Gate(channels, conditional=conditional)

    def forward(self, x: Tensor, told: Told) -> Tensor:
        """The stream [B, C, h, w] -> the stream; the first layer takes embedded codes."""
        added = self.gate(self.conv(x), told)
        return added if self.first else x + added


class Attention(nn.Module):
    """Attention of each place to those strictly before it, through a gate.

    A place asks by its feature and by where it stands; it offers these and its code. What is offered is
    shifted by one place, so that plain causal attention reads what is strictly earlier; in front comes
    something learnt, which is all that the first place has.
    """

    def __init__(self, channels: int, heads: int, places: int, *, conditional: bool):
        super().__init__()
        self.heads, self.width = heads, heads * HEAD
        # queries, keys and values, A each
        self.of_feature = nn.Linear(channels, 3 * self.width)
        self.of_place = nn.Linear(places, 3 * self.width, bias=False)
        self.of_code = nn.Linear(channels, 2 * self.width, bias=False)  # none asks by its own code
        self.before = nn.Parameter(torch.zeros(2 * self.width))
        self.join = nn.Linear(channels + self.width, 2 * channels)
        self.gate = Gate(channels, conditional=conditional)

    def forward(self, x: Tensor, codes: Tensor, places: Tensor, told: Told) -> Tensor:
        """The stream [B, C, h, w] -> the stream.

        Args:
            codes: embedded, [B, h, w, C].
            places: numbers that tell where a place is, [h, w, P].
        """
        features = rearrange(x, "b c h w -> b h w c")
        joined = self.join(torch.cat([features, self._read(features, codes, places)], dim=-1))
        return x + self.gate(rearrange(joined, "b h w c -> b c h w"), told)

    def _read(self, features: Tensor, codes: Tensor, places: Tensor) -> Tensor:
        """What each place reads, [B, h, w, A]."""
        own = self.of_feature(features) + self.of_place(places)
        asked, offered = own.split([self.width, 2 * self.width], dim=-1)
        offered = (offered + self.of_code(codes)).flatten(1, 2)  # [B, T, 2A]
        before = self.before.to(offered.dtype).expand(offered.shape[0], 1, -1)
        offered = torch.cat([before, offered[:, :-1]], dim=1)
        queries = rearrange(asked, "b h w (heads d) -> b heads (h w) d", heads=self.heads)
        keys, values = rearrange(offered, "b t (two heads d) -> two b heads t d", two=2, heads=self.heads)
        read = causal_attention(queries, keys, values)
        return rearrange(read, "b heads (h w) d -> b h w (heads d)", h=features.shape[1])
