"""Codes from a prior and given randomness: pure functions, no state, no files.

There is one loop. It asks a cache of the prior for the logits of one place after the other
(stage2_prior/prior.py), and knows neither the kind of prior nor guidance, which is a cache around a cache.

Legend: B maps, h x w their size, K codes.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vqprior.runtime.codes import Codes
from vqprior.stage2_prior.prior import Cache

from .choice import Choice, Setting, along
from .noise import Noise

Forward = Callable[[Tensor, Tensor | None, Codes], Tensor]
"""What a prior's own forward is: codes, labels and the codes above -> logits."""


def guide(conditional: Tensor, unconditional: Tensor, guidance: Setting) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598, Equation 6 with guidance = 1 + w)."""
    return unconditional + along(guidance, conditional) * (conditional - unconditional)


class Guided:
    """A `Cache` whose logits are guided: of twice as many maps, the second half of which is told no label.

    Args:
        cache: of 2B maps.
        null_label: that says so.
        guidance: a number, or a tensor [B] on the device.
    """

    def __init__(self, cache: Cache, null_label: int, guidance: Setting):
        self.cache, self.null_label, self.guidance = cache, null_label, guidance

    def reset(self, labels: Tensor, above: Codes = ()) -> None:
        self.cache.reset(*self.both(labels, above, self.null_label))

    @staticmethod
    def both(labels: Tensor, above: Codes, null_label: int) -> tuple[Tensor, Codes]:
        """The labels [B] of the maps and the codes above them, and those of their doubles: of 2B maps."""
        doubled = torch.cat([labels, torch.full_like(labels, null_label)])
        return doubled, tuple(torch.cat([codes, codes]) for codes in above)

    def begin_row(self, i: int) -> None:
        self.cache.begin_row(i)

    def logits(self, j: int) -> Tensor:
        conditional, unconditional = self.cache.logits(j).chunk(2)
        return guide(conditional, unconditional, self.guidance)

    def put(self, j: int, codes: Tensor) -> None:
        self.cache.put(j, codes.repeat(2))


def is_guided(guidance: Setting) -> bool:
    """Whether it is other than 1, which leaves the prior as it is."""
    return isinstance(guidance, Tensor) or guidance != 1


def full_logits(
    forward: Forward,
    codes: Tensor,
    labels: Tensor | None,
    above: Codes,
    null_label: int | None,
    guidance: Setting,
) -> Tensor:
    """Logits [B, K, h, w] of codes [B, h, w] in one forward, of twice as many maps where they are guided."""
    if not is_guided(guidance):
        return forward(codes, labels, above)
    both_labels, both_above = Guided.both(labels, above, null_label)
    conditional, unconditional = forward(codes.repeat(2, 1, 1), both_labels, both_above).chunk(2)
    return guide(conditional, unconditional, guidance)


def rows(
    cache: Cache,
    noise: Noise,
    choice: Choice,
    memory: Tensor,
    height: int,
    known: Tensor | None = None,
) -> Iterator[Tensor]:
    """Ancestral sampling in raster order: the rows of B maps, [B, w] int64, one after the other; without
    gradients.

    Args:
        cache: at the beginning of its maps.
        noise: of the B maps, row by row.
        choice: with numbers, or with tensors on the device.
        memory: [2, B, w] int64 on the device, which the rows are made in: a row is good until the next one.
        height: h.
        known: codes [B, h, w] int64 that are kept, and -1 where one is to be drawn; without it all are drawn.
            A code is drawn given all codes before it in raster order, known and drawn, and no code after it.
    """
    for i in range(height):
        yield draw_row(i, cache, noise, choice, memory, known)


def draw_row(
    i: int,
    cache: Cache,
    noise: Noise,
    choice: Choice,
    memory: Tensor,
    known: Tensor | None = None,
) -> Tensor:
    """Row i of the maps, [B, w] int64: see `rows`. On a GPU this is the same work on the same memory for all
    maps of a size."""
    row, known_row = memory
    chance = noise(i, row.shape[1])
    cache.begin_row(i)
    if known is not None:
        known_row.copy_(known[:, i])
    for j in range(row.shape[1]):
        codes = choice(cache.logits(j), chance[:, j])
        if known is not None:
            codes = torch.where(known_row[:, j] < 0, codes, known_row[:, j])
        row[:, j] = codes
        cache.put(j, codes)
    return row


@torch.no_grad()
def map_of(drawn: Iterator[Tensor]) -> Tensor:
    """The maps [B, h, w] of rows."""
    return torch.stack([row.clone() for row in drawn], dim=1)
