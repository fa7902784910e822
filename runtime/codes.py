"""Maps of codes: what one level of them is, and the codes of all levels, which travel together.

Legend: B images, K codes, h x w a map.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .transfer import onto


@dataclass(frozen=True)
class Level:
    """One map of codes of an image. Levels are listed coarsest first."""

    K: int
    height: int
    width: int
    codes_per_position: int = 1  # codes of the same square of pixels, side by side: they divide the width

    @property
    def size(self) -> tuple[int, int]:
        """h and w."""
        return self.height, self.width

    @property
    def places(self) -> int:
        """Codes of a map."""
        return self.height * self.width

    @property
    def dtype(self) -> np.dtype:
        """The narrowest integer type that holds the codes."""
        return np.dtype(np.uint8 if self.K <= 256 else np.uint16)

    def __str__(self) -> str:
        return f"{self.height}x{self.width} codes of {self.K}"


Codes = tuple[Tensor, ...]
"""A map a level, coarsest first, each [B, h, w] int64 in [0, K). One level is a tuple of one."""


def picked(codes: Codes, at: Tensor | slice) -> Codes:
    """The codes of some of the images."""
    return tuple(of_level[at] for of_level in codes)


def joined(parts: Iterable[Codes]) -> Codes:
    """The codes of all images of several parts."""
    return tuple(map(torch.cat, zip(*parts, strict=True)))


def in_a_row(codes: Codes) -> Tensor:
    """The codes of all levels, or what there is a number of for each, [B, places of all levels]."""
    return torch.cat([of_level.flatten(1) for of_level in codes], dim=1)


def apart(rows: Tensor, levels: Sequence[Level]) -> Codes:
    """What `in_a_row` joined, with whatever axes before the last one: a map [..., h, w] a level."""
    maps = zip(levels, rows.split([level.places for level in levels], dim=-1), strict=True)
    return tuple(of_level.unflatten(-1, level.size) for level, of_level in maps)


def codes_onto(codes: Codes, device: torch.device) -> Codes:
    """The codes on a device; see `transfer.onto`."""
    return tuple(onto(of_level, device) for of_level in codes)


def in_words(levels: Iterable[Level]) -> str:
    """The levels, coarsest first."""
    return " + ".join(map(str, levels))
