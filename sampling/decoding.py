"""What makes pictures of codes that were imported, where there is no VQ-VAE: colours, or a function of the
user's."""

import colorsys
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, Self

import numpy as np
import torch
from torch import Tensor

from vqprior.configs import Config
from vqprior.configs.errors import UserError
from vqprior.configs.schema import Precision
from vqprior.runtime.codes import Codes, Level
from vqprior.runtime.processes import say

GOLDEN = 0.618  # of the circle of hues: codes with near numbers have other colours
OF_THE_USER = (Exception, SystemExit)  # what code of the user's may raise
Decoder = Callable[[np.ndarray], np.ndarray]
"""Codes int64 [N, h, w] -> images uint8 [N, H, W, C]."""


def colours(K: int) -> Tensor:
    """A colour for each code, [K, 3] uint8: black and white of two, else hues that differ."""
    if K == 2:
        return torch.tensor([[0] * 3, [255] * 3], dtype=torch.uint8)
    hues = (
        colorsys.hsv_to_rgb(k * GOLDEN % 1, 0.45 + 0.5 * (k % 2), 0.6 + 0.4 * (k % 3 / 2)) for k in range(K)
    )
    return (torch.tensor([*hues]) * 255).round().to(torch.uint8)


class Imported:
    """Codes without a VQ-VAE; what a `Tokenizer` is to codes that have one.

    Args:
        levels: of the codes.
        size: height and width in pixels of a square of colour.
        decoder: of the user's, in place of colours.
    """

    def __init__(self, levels: Sequence[Level], size: int = 4, decoder: Decoder | None = None):
        self.levels, self.size, self.decoder = tuple(levels), size, decoder
        self.colours = colours(self.levels[-1].K)
        self._shape: tuple[int, ...] | None = None  # [H, W, C] of what the decoder gave first

    @classmethod
    def of(cls, config: Config, levels: Sequence[Level]) -> Self:
        """As a run's settings say; raises as `named_decoder`."""
        words = config.data.decoder
        return cls(levels, config.stage1.factor, named_decoder(words) if words else None)

    @property
    def K(self) -> int:
        """Number of codes."""
        return self.levels[-1].K

    def images_of(self, codes: Codes, *, precision: Precision = "no") -> Tensor:
        """Codes [B, h, w] -> pictures uint8 [B, C, H, W] on the CPU.

        Raises:
            UserError: the user's decoder gives something else.
        """
        (own,) = (of_level.cpu() for of_level in codes)
        if self.decoder is None:
            squares = self.colours[own].permute(0, 3, 1, 2)
            return squares.repeat_interleave(self.size, 2).repeat_interleave(self.size, 3)
        try:
            made = np.array(self.decoder(own.numpy().copy()), order="C")  # a flipped view is no tensor
        except OF_THE_USER as error:
            found = f"{type(error).__name__}: {error}"
            raise UserError(f"data.decoder failed on codes int64 {list(own.shape)} ({found})") from error
        fits = made.ndim == 4 and made.size and len(made) == len(own) and made.shape[-1] in (1, 3)
        if made.dtype != np.uint8 or not fits:
            found = f"{made.dtype} {list(made.shape)}"
            raise UserError(
                f"data.decoder gave {found} for {len(own)} maps; it gives uint8 [N, H, W, 1 or 3]"
            )
        self._shape = self._shape or made.shape[1:]
        if made.shape[1:] != self._shape:
            found = f"[N, {', '.join(map(str, self._shape))}] before and {list(made.shape)} now"
            raise UserError(
                f"data.decoder gave {found}; it gives pictures of one size, whatever the codes are"
            )
        return torch.from_numpy(made).permute(0, 3, 1, 2)

    def refuse_unsound(self) -> None:
        """Refuse, as `images_of`, a decoder of the user's that does not work: before hours are spent."""
        self.images_of(tuple(torch.zeros(1, *level.size, dtype=torch.int64) for level in self.levels))


def named_decoder(words: str) -> Decoder:
    """The function that MODULE:FUNCTION names; its module is found where Python finds it, and in the current
    folder.

    Raises:
        UserError: there is no such function.
    """
    module, _, name = words.partition(":")
    here = str(Path.cwd())
    sys.path[:0] = [here] if here not in sys.path else []
    say(f"the codes are decoded by {words}, code of your own")
    try:
        return getattr(importlib.import_module(module), name)
    except OF_THE_USER as error:
        found = f"{type(error).__name__}: {error}"
        hint = "it takes MODULE:FUNCTION, found from the current folder"
        raise UserError(
            f"data.decoder is {words!r}, and that cannot be imported ({found}); {hint}"
        ) from error


def refuse_imported() -> NoReturn:
    """Refuse what needs pictures.

    Raises:
        UserError: always.
    """
    raise UserError(
        "the codes of this run were imported: it has no VQ-VAE and no pictures. What it can do: train-prior, "
        "sample, evaluate, export, app; from Python sample, sample_codes, log2_prob, posterior and classify"
    )
