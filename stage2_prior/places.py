"""Where a code stands in its map, as numbers: for maps of any height and width.

Legend: h x w a map, n codes a position.
"""

import math

import torch
from torch import Tensor

WAVES = 8  # half periods across the map: enough to tell 16 places apart


def coordinates(height: int, width: int, device: torch.device) -> Tensor:
    """Row and column of each place, the centre of the map being 0 and its edges -1 and 1: [h, w, 2] fp32."""
    rows, columns = ((2 * torch.arange(side, device=device) + 1) / side - 1 for side in (height, width))
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)


def place_features(height: int, width: int, codes_per_position: int, device: torch.device) -> Tensor:
    """Numbers that tell each place apart, [h, w, `place_numbers(n)`] fp32: its coordinates, waves of them,
    and which of the codes of a position it is."""
    at = coordinates(height, width, device)
    frequency = math.pi / 2 * torch.arange(1, WAVES + 1, device=device)
    waves = (at[..., None] * frequency).flatten(2)  # [h, w, 2 * WAVES]
    which = torch.arange(width, device=device) % codes_per_position
    # not `one_hot`, which reads numbers back from some devices
    one_hot = which[:, None] == torch.arange(codes_per_position, device=device)
    return torch.cat([at, waves.sin(), waves.cos(), one_hot.expand(height, -1, -1).to(at)], dim=-1)


def place_numbers(codes_per_position: int) -> int:
    """How many numbers tell a place."""
    return 2 + 4 * WAVES + codes_per_position
