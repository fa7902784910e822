"""Codes from a prior and given randomness: pure functions, no state, no files.

Legend: B maps, h x w their size, K codes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vqprior.stage2_prior.pixelcnn import PixelCNN

from .choice import Choice, Setting, along
from .noise import Noise
from .workspace import Workspace

Prior = Callable[[Tensor, Tensor | None], Tensor]
"""codes [B, h, w], labels [B] or None -> logits [B, K, h, w], each of earlier codes alone."""


def guide(conditional: Tensor, unconditional: Tensor, guidance: Setting) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598, Equation 6 with guidance = 1 + w)."""
    return unconditional + along(guidance, conditional) * (conditional - unconditional)


def guided(prior: Prior, null_label: int, guidance: Setting) -> Prior:
    """The prior whose logits are guided: two forwards in one."""

    def forward(codes: Tensor, labels: Tensor | None) -> Tensor:
        both = prior(codes.repeat(2, 1, 1), torch.cat([labels, torch.full_like(labels, null_label)]))
        return guide(*both.chunk(2), guidance)

    return forward


def keep_known(known: Tensor | None, drawn: Tensor) -> Tensor:
    """The codes [B] of a place: those known [B] there, and the drawn ones [B] where it says -1."""
    return drawn if known is None else torch.where(known < 0, drawn, known)


@torch.no_grad()
def sample_by_full_forwards(
    prior: Prior, labels: Tensor | None, noise: Noise, choice: Choice, *, maps: int, height: int, width: int,
    device: torch.device, known: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Ancestral sampling, one full forward a code: slow, and plainly right.

    Args:
        prior: any function of that kind; nothing else of it is used.
        labels: [B] int64, or None for an unconditional prior.
        noise: of the B maps, row by row.
        choice: with numbers, or with tensors on the device.
        maps: B.
        known: codes [B, h, w] int64 that are kept, and -1 where one is to be drawn; without it all are drawn. A code is
            drawn given all codes before it in raster order, known and drawn, and no code after it.

    Returns:
        Codes [B, h, w] int64.
    """
    codes = torch.zeros(maps, height, width, dtype=torch.int64, device=device)
    for i in range(height):
        row_noise = noise(i, width)
        for j in range(width):
            logits = prior(codes, labels)[:, :, i, j]
            there = None if known is None else known[:, i, j]
            codes[:, i, j] = keep_known(there, choice(logits, row_noise[:, j]))
    return codes


@torch.no_grad()
def sample_cached(
    prior: PixelCNN, labels: Tensor | None, noise: Noise, choice: Choice, *, maps: int, height: int, width: int,
    guidance: Setting = 1.0, dtype: torch.dtype | None = None, known: Tensor | None = None,
    workspace: Workspace | None = None,
) -> Tensor:  # fmt: skip
    """The same codes as `sample_by_full_forwards`, for the multiply-adds of one forward instead of h * w.

    Args:
        prior: in evaluation mode.
        guidance: a number, or a tensor [B] on the device; other than 1 takes a prior with a `null_label`, and twice the work.
        dtype: that the prior computes in; its own unless given.
        workspace: memory of an earlier call; what is in it does not matter.
    """
    twice = isinstance(guidance, Tensor) or guidance != 1
    if twice:
        labels = torch.cat([labels, torch.full_like(labels, prior.null_label)])
    workspace = workspace or Workspace()
    cache = workspace.cache(prior, labels, maps=maps * (1 + twice), width=width, dtype=dtype)
    row, known_row = workspace.rows(maps)  # each [B, w]
    codes = torch.empty(maps, height, width, dtype=torch.int64, device=prior.device)
    for i in range(height):
        row_noise = noise(i, width)
        cache.begin_row()
        if known is not None:
            known_row.copy_(known[:, i])
        for j in range(width):
            logits = guide(*cache.logits(j).chunk(2), guidance) if twice else cache.logits(j)
            there = None if known is None else known_row[:, j]
            drawn = keep_known(there, choice(logits, row_noise[:, j]))
            row[:, j] = drawn
            cache.put(j, drawn.repeat(2) if twice else drawn)
        codes[:, i] = row
    return codes
