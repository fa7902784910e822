"""Codes from a prior and given randomness: pure functions, no state, no files.

Legend: B maps, h x w their size, K codes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from configs.errors import UserError
from stage2_prior.cached import CachedPixelCNN
from stage2_prior.pixelcnn import PixelCNN

from .noise import Noise

Prior = Callable[[Tensor, Tensor | None], Tensor]
"""codes [B, h, w], labels [B] or None -> logits [B, K, h, w], each of earlier codes alone."""


def guide(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598, Equation 6 with guidance = 1 + w)."""
    return unconditional + guidance * (conditional - unconditional)


def guided(prior: Prior, null_label: int, guidance: float) -> Prior:
    """The prior whose logits are guided: two forwards in one."""

    def forward(codes: Tensor, labels: Tensor | None) -> Tensor:
        both = prior(codes.repeat(2, 1, 1), torch.cat([labels, torch.full_like(labels, null_label)]))
        return guide(*both.chunk(2), guidance)

    return forward


@dataclass(frozen=True)
class Choice:
    """How a code is chosen from logits: first the temperature, then top-k, then top-p."""

    temperature: float = 1.0
    top_k: int = 0  # 0: all codes
    top_p: float = 1.0  # 1: all codes

    def __post_init__(self):
        if self.temperature <= 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise UserError(f"{self}: temperature must be above 0, top_k at least 0 (all codes), top_p in (0, 1]")

    def restrict(self, logits: Tensor) -> Tensor:
        """Logits [..., K] -> the same over the temperature, with -inf for the codes that may not be drawn.

        top-k keeps the k largest; top-p keeps the fewest likeliest whose probabilities, renormalised after top-k, add
        up to at least p (Holtzman et al. 2019, arXiv 1904.09751). Equal logits are kept or dropped together in top-k.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k, dim=-1).values[..., -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if self.top_p < 1:
            ordered, order = logits.sort(dim=-1, descending=True, stable=True)
            probabilities = ordered.softmax(dim=-1)
            before = probabilities.cumsum(dim=-1) - probabilities  # of all likelier codes
            dropped = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= self.top_p)
            logits = logits.masked_fill(dropped, -torch.inf)
        return logits

    def __call__(self, logits: Tensor, noise: Tensor) -> Tensor:
        """Gumbel-max: logits and noise [B, K] -> codes [B].

        Under rounding of the logits it is far steadier than the inverse of a cumulative sum: a code changes only
        where the two best perturbed logits tie.
        """
        return (self.restrict(logits) + noise).argmax(dim=-1)


@torch.no_grad()
def sample_by_full_forwards(
    prior: Prior, labels: Tensor | None, noise: Noise, choice: Choice, *, maps: int, height: int, width: int,
    device: torch.device,
) -> Tensor:  # fmt: skip
    """Ancestral sampling, one full forward a code: slow, and plainly right.

    Args:
        prior: any function of that kind; nothing else of it is used.
        labels: [B] int64, or None for an unconditional prior.
        noise: of the B maps, row by row.
        maps: B.

    Returns:
        Codes [B, h, w] int64.
    """
    codes = torch.zeros(maps, height, width, dtype=torch.int64, device=device)
    for i in range(height):
        row_noise = noise(i, width)
        for j in range(width):
            logits = prior(codes, labels)[:, :, i, j]
            codes[:, i, j] = choice(logits, row_noise[:, j])
    return codes


@torch.no_grad()
def sample_cached(
    prior: PixelCNN, labels: Tensor | None, noise: Noise, choice: Choice, *, maps: int, height: int, width: int,
    guidance: float = 1.0, dtype: torch.dtype | None = None,
) -> Tensor:  # fmt: skip
    """The same codes as `sample_by_full_forwards`, for the multiply-adds of one forward instead of h * w.

    Args:
        prior: in evaluation mode.
        guidance: other than 1 takes a prior with a `null_label`, and twice the work.
        dtype: that the prior computes in; its own unless given.
    """
    twice = guidance != 1
    if twice:
        labels = torch.cat([labels, torch.full_like(labels, prior.null_label)])
    cache = CachedPixelCNN(prior, labels, maps=maps * (1 + twice), width=width, dtype=dtype)
    codes = torch.empty(maps, height, width, dtype=torch.int64, device=prior.device)
    for i in range(height):
        row_noise = noise(i, width)
        cache.begin_row()
        for j in range(width):
            logits = guide(*cache.logits(j).chunk(2), guidance) if twice else cache.logits(j)
            codes[:, i, j] = choice(logits, row_noise[:, j])
            cache.put(j, codes[:, i, j].repeat(1 + twice))
    return codes
