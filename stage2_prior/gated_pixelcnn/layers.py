"""The gated layers of the Gated PixelCNN (arXiv 1606.05328), of the convolutions in `causal.py`.

Two stacks read the code map. For a place, the vertical stack sees all rows above it, the horizontal stack the
places to its left (`causal.py` draws both); together they see every earlier place in raster order, and there
is no blind spot. A later vertical layer may read its own row, since a feature of row i is made of codes of
rows < i alone.

Legend: B maps, C channels, h x w the map.
"""

from torch import Tensor, nn

from ..causal import HorizontalConv, VerticalConv, gate


class GatedLayer(nn.Module):
    """One layer of both stacks (Figure 2); the class bias of Equation 4 is handed in.

    The first layer must see strictly earlier places: a residual connection would show it its own.

    Args:
        conditional: whether it is told what the levels above say of each place.
    """

    def __init__(self, channels: int, kernel: int, *, first: bool, conditional: bool = False):
        super().__init__()
        self.first = first
        self.vertical = VerticalConv(channels, 2 * channels, kernel, first=first)
        self.horizontal = HorizontalConv(channels, 2 * channels, kernel, first=first)
        self.vertical_to_horizontal = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        # of what the levels above say, the vertical stack's 2C first; without a bias, which the others have
        self.condition = nn.Conv2d(channels, 4 * channels, 1, bias=False) if conditional else None

    def forward(
        self,
        v: Tensor,
        h: Tensor,
        bias: Tensor | None = None,
        factors: Tensor | None = None,
        above: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Vertical and horizontal features [B, C, h, w] -> the next layer's v and h.

        Args:
            bias: what the class adds to each feature before the gates, [B, 4C], the vertical stack's 2C
            first.
            factors: dropout's factors [B, C] of the gated channels, or None to drop nothing.
            above: what the levels above say of each place, [B, C, h, w].
        """
        v_in = self.vertical(v)  # [B, 2C, h, w]
        h_in = self.horizontal(h) + self.vertical_to_horizontal(v_in)  # [B, 2C, h, w]
        if bias is not None:
            v_bias, h_bias = bias[:, :, None, None].chunk(2, dim=1)
            v_in, h_in = v_in + v_bias, h_in + h_bias
        if above is not None:
            v_above, h_above = self.condition(above).chunk(2, dim=1)
            v_in, h_in = v_in + v_above, h_in + h_above
        gated = gate(h_in)  # [B, C, h, w]
        if factors is not None:
            # the factors in fp32, under autocast too
            gated = (gated * factors[:, :, None, None]).to(gated.dtype)
        out = self.project(gated)  # [B, C, h, w]
        return gate(v_in), out if self.first else h + out
