"""One block of a decoder-only transformer over codes, and how it knows where they stand.

Positions turn queries and keys (rotary embedding, arXiv 2104.09864): half of a head's pairs of channels by
the row, half by the column. A query is turned by the place whose code it helps to predict, a key by the place
of the code that it holds: what attention sees is how far up and to the left of the predicted code a code
stands, whatever the height and width of the map.

All heads share one key and one value (multi-query attention, arXiv 1911.02150): sampling reads the keys and
values of all earlier tokens for each code, and at 4 heads a quarter of them is read in a quarter of the time.

Legend: B maps, T tokens (places in raster order), C channels, H heads, d = C / H channels of a head.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..attention import causal_attention

BASE = 100.0  # of the wave lengths, in places: maps are small
WIDER = 4  # times C: hidden channels after attention


def turns(rows: Tensor, columns: Tensor, d: int) -> Tensor:
    """Cosines and sines [2, T, d / 2] of the angles that places at these rows and columns [T] turn by."""
    pairs = d // 4  # of the row, and as many of the column
    speed = BASE ** -(torch.arange(pairs, device=rows.device) / pairs)
    angles = torch.cat([rows[:, None] * speed, columns[:, None] * speed], dim=1)
    return torch.stack([angles.cos(), angles.sin()])


def turned(x: Tensor, by: Tensor) -> Tensor:
    """Channels [..., d] turned by cosines and sines [2, ..., d / 2]."""
    cosine, sine = by.to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], dim=-1)


class Block(nn.Module):
    """Attention to all tokens so far and a network for each token, both after a normalisation (pre-norm)."""

    def __init__(self, channels: int, heads: int, *, conditional: bool):
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(channels, bias=False)
        self.query_key_value = nn.Linear(channels, channels + 2 * (channels // heads), bias=False)
        self.attended = nn.Linear(channels, channels, bias=False)
        self.network_norm = nn.LayerNorm(channels, bias=False)
        self.widen = nn.Linear(channels, WIDER * channels)
        self.narrow = nn.Linear(WIDER * channels, channels)
        # of what the levels above say of the predicted place
        self.condition = nn.Linear(channels, channels, bias=False) if conditional else None

    def forward(
        self,
        x: Tensor,
        of_queries: Tensor,
        of_keys: Tensor,
        label: Tensor | None = None,
        above: Tensor | None = None,
        factors: Tensor | None = None,
    ) -> Tensor:
        """Tokens [B, T, C] -> tokens [B, T, C].

        Args:
            of_queries, of_keys: what they are turned by, see `turns`.
            label: what the label of each map adds to all of its tokens, [B, C].
            above: what the levels above say of the place that each token predicts, [B, T, C].
            factors: dropout's [B, 2, C], of what attention and the network add.
        """
        if label is not None:
            x = x + label[:, None]
        if above is not None:
            x = x + self.condition(above)
        made = rearrange(
            self.query_key_value(self.attention_norm(x)), "b t (h d) -> b h t d", h=self.heads + 2
        )
        q, k, v = made.split([self.heads, 1, 1], dim=1)
        seen = causal_attention(turned(q, of_queries), turned(k, of_keys), v)  # [B, H, T, d]
        added = self.attended(rearrange(seen, "b h t d -> b t (h d)"))
        x = x + scaled(added, factors, 0)
        added = self.narrow(F.gelu(self.widen(self.network_norm(x))))
        return x + scaled(added, factors, 1)


def scaled(added: Tensor, factors: Tensor | None, index: int) -> Tensor:
    """Tokens [B, T, C] times one of dropout's factors, in their own type under autocast too."""
    return added if factors is None else (added * factors[:, index, None]).to(added.dtype)
