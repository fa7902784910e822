"""The hidden part of a picture: which pixels, which codes, and what stands in for it before the picture is
encoded.

Legend: C channels, H x W the size of a picture, h x w of its code map.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vqprior.configs.commands import Half
from vqprior.configs.errors import UserError
from vqprior.runtime.codes import Level

GREY = 128


def half(which: Half, height: int, width: int) -> Tensor:
    """A mask [H, W] bool that hides half of a picture; an odd row or column in the middle stays known."""
    side, rows, columns = which.split()[0], slice(None), slice(None)
    if side in ("lower", "upper"):
        rows = slice(height - height // 2, None) if side == "lower" else slice(height // 2)
    else:
        columns = slice(width - width // 2, None) if side == "right" else slice(width // 2)
    hidden = torch.zeros(height, width, dtype=torch.bool)
    hidden[rows, columns] = True
    return hidden


def box(top: int, left: int, box_height: int, box_width: int, height: int, width: int) -> Tensor:
    """A mask [H, W] bool that hides a box of a picture, or as much of it as lies inside.

    Raises:
        UserError: nothing of it does.
    """
    if top >= height or left >= width:
        raise UserError(
            f"the box begins at row {top}, column {left}, but the picture has {height} rows and {width} "
            "columns"
        )
    hidden = torch.zeros(height, width, dtype=torch.bool)
    hidden[top : top + box_height, left : left + box_width] = True
    return hidden


def hidden_codes(hidden: Tensor, level: Level) -> Tensor:
    """A mask of pixels [H, W] bool -> of a level's codes [h, w] bool: a code is hidden where any pixel of its
    own square is."""
    h, w = level.height, level.width // level.codes_per_position
    squares = rearrange(hidden, "(h y) (w x) -> h w (y x)", h=h, w=w).any(dim=-1)
    return squares.repeat_interleave(level.codes_per_position, dim=1)


def fill(picture: Tensor, hidden: Tensor) -> Tensor:
    """A picture [C, H, W] uint8 with its hidden pixels [H, W] painted over smoothly, from the known ones
    alone.

    Known pixels are averaged over ever larger squares, and a hidden pixel takes the finest average that there
    is (the pyramid of Gortler et al. 1996, "The Lumigraph"). Without any known pixel all is grey.
    """
    x = torch.where(hidden, 0, picture)[None].float()
    smooth = _fill(x, (~hidden)[None, None].float()).round().clamp(0, 255).to(torch.uint8)[0]
    return torch.where(hidden, smooth, picture)


def _fill(x: Tensor, known: Tensor) -> Tensor:
    """x [1, C, H, W] where `known` [1, 1, H, W] is 1, elsewhere itself at half the size, filled and
    enlarged."""
    size = x.shape[-2:]
    if known.all():
        return x
    if size == (1, 1):
        return torch.full_like(x, GREY)
    share = F.avg_pool2d(known, 2, ceil_mode=True)
    means = F.avg_pool2d(x * known, 2, ceil_mode=True) / share.where(share > 0, 1)
    coarse = _fill(means, (share > 0).to(x))
    return torch.where(known > 0, x, F.interpolate(coarse, size, mode="bilinear"))
