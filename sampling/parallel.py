"""Codes from a prior by whole maps at a time: full forwards from a guess until nothing changes.

With the noise of an image given, its codes are the one fixed point of x = choice(logits(x), noise), since the
logits of a place are a function of earlier codes alone (Song et al. 2020, "Accelerating Feedforward
Computation via Parallel Nonlinear Equation Solving", arXiv 2002.09928, Jacobi iteration). A round computes
all places at once. The places before the first one that changed are right for good, and so is that one: its
logits were made of codes that are right. So it takes at most as many rounds as there are places, and in
practice far fewer; the codes are those of drawing one after the other, up to ties within rounding.

Legend: N maps, S slots (maps in one forward), h x w the map, T = h w places, K codes.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vqprior.runtime.codes import Codes, codes_onto, picked
from vqprior.runtime.transfer import onto
from vqprior.stage2_prior.prior import Prior

from .choice import Choice
from .noise import Noise
from .sampler import Guided, guide, is_guided

NoiseOf = Callable[[Tensor], Noise]
"""Which of the maps [n] -> their noise, row by row."""
Forward = Callable[[Tensor, Tensor | None, Codes], Tensor]
"""What a prior's own forward is: codes, labels and the codes above -> logits, good until the next call."""


class Round(NamedTuple):
    """What the slots hold after a round."""

    maps: Tensor  # [S] int64 on the CPU: which of the N maps each slot works on
    codes: Tensor  # [S, h, w] int64 on the device, guesses but for the maps that have settled
    settled: Tensor  # [S] bool on the CPU


class Given(NamedTuple):
    """What the maps are drawn given, for all N of them."""

    labels: Tensor | None  # [N]
    above: Codes  # of the coarser levels, each [N, h', w']
    known: Tensor | None  # [N, h, w], -1 where a code is to be drawn
    choice: Choice


def rounds(
    prior: Prior,
    given: Given,
    noise_of: NoiseOf,
    *,
    maps: int,
    slots: int,
    forward: Forward,
) -> Iterator[Round]:
    """Settle N maps in slots of one fixed number: whoever has settled leaves, and the next one takes its
    place; without gradients.

    Args:
        noise_of: of the maps with these numbers among the N.
        maps: N.
        slots: S; free ones repeat a map.
        forward: of the prior, in the precision that is wanted; twice S maps where they are guided.
    """
    # One number where all maps share it, as the cached way has it: a guidance of ones is none
    given = given._replace(choice=given.choice.of_maps(torch.arange(maps), prior.device))
    waiting = iter(range(maps))
    state = _Slots(prior, given, noise_of, slots, forward)
    state.fill([*range(slots)], waiting)
    while state.working:
        with torch.no_grad():
            settled = state.round()
        yield Round(state.maps.clone(), state.codes, settled)
        state.fill(settled.nonzero().flatten().tolist(), waiting)


class _Slots:
    """Maps that are worked on together, and how much of each is right for good."""

    def __init__(self, prior: Prior, given: Given, noise_of: NoiseOf, slots: int, forward: Forward):
        self.prior, self.given, self.noise_of, self.forward = prior, given, noise_of, forward
        self.guided, device, size = is_guided(given.choice.guidance), prior.device, prior.level.size
        self.maps = torch.full((slots,), -1)  # of the slots, on the CPU; -1 where there is none
        self.codes = torch.zeros(slots, *size, dtype=torch.int64, device=device)
        self.known = torch.full_like(self.codes, -1)
        self.right = torch.zeros(slots, dtype=torch.int64, device=device)  # places from the first that are
        self.noise = torch.zeros(slots, prior.level.places, prior.K, device=device)

    @property
    def working(self) -> bool:
        """Whether any slot holds a map."""
        return bool((self.maps >= 0).any())

    def fill(self, free: list[int], waiting: Iterator[int]) -> None:
        """Give these slots to the maps that wait; slots for which there is none are left empty."""
        taken = list(zip(free, waiting, strict=False))  # whichever ends first
        self.maps[free] = -1
        if not taken:
            return
        slots, maps = (torch.tensor(numbers) for numbers in zip(*taken, strict=True))
        self.maps[slots] = maps
        there, (height, width) = onto(slots, self.codes.device), self.prior.level.size
        noise = self.noise_of(maps)
        rows = [noise(i, width).clone() for i in range(height)]
        self.noise[there] = torch.cat(rows, dim=1).to(self.noise.dtype)  # [n, T, K]
        self.codes[there] = self.noise[there].argmax(-1).view(-1, height, width)  # a draw of a uniform prior
        self.right[there] = 0
        if self.given.known is not None:
            self.known[there] = onto(self.given.known[maps], self.codes.device)

    def round(self) -> Tensor:
        """One forward, and what it settles: [S] bool on the CPU, for which the host waits, once a round."""
        places, device = self.prior.level.places, self.codes.device
        at = self.maps.clamp(min=0)
        choice = self.given.choice.of_maps(at.repeat_interleave(places), device)
        logits = self._logits(at, choice)
        new = choice(logits.flatten(0, 1), self.noise.flatten(0, 1)).view_as(self.codes)
        new = torch.where(self.known < 0, new, self.known)

        # Right are the places up to the first that changed, itself included
        changed = (new != self.codes).flatten(1)
        place = torch.arange(places, device=device)
        changed &= place >= self.right[:, None]
        first = torch.where(changed, place, places).amin(1)
        self.codes, self.right = new, (first + 1).clamp(max=places)
        return ((self.right == places).cpu()) & (self.maps >= 0)

    def _logits(self, at: Tensor, choice: Choice) -> Tensor:
        """Logits [S, T, K] of the codes as they are now, guided."""
        device = self.codes.device
        labels = None if self.given.labels is None else onto(self.given.labels[at], device)
        above, codes = codes_onto(picked(self.given.above, at), device), self.codes
        if self.guided:
            labels, above = Guided.both(labels, above, self.prior.null_label)
            codes = codes.repeat(2, 1, 1)
        logits = self.forward(codes, labels, above).flatten(2).transpose(1, 2)
        if not self.guided:
            return logits
        conditional, unconditional = logits.chunk(2)
        rows = guide(conditional.flatten(0, 1), unconditional.flatten(0, 1), choice.guidance)
        return rows.view_as(conditional)


def settled_maps(all_rounds: Iterator[Round], maps: int, codes: Tensor) -> Tensor:
    """The maps, written into `codes` [N, h, w], and how many rounds each took: [N] int64 on the CPU."""
    taken = torch.zeros(maps, dtype=torch.int64)
    for at, guesses, settled in all_rounds:
        taken[at[at >= 0]] += 1
        codes[onto(at[settled], codes.device)] = guesses[onto(settled, guesses.device)]
    return taken
