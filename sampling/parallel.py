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

from vqprior.runtime import graph
from vqprior.runtime.codes import Codes
from vqprior.runtime.transfer import onto
from vqprior.stage2_prior.prior import Prior

from .choice import Choice
from .noise import Noise
from .sampler import Forward, full_logits

NoiseOf = Callable[[Tensor], Noise]
"""Which of the maps [n] -> their noise, row by row."""


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


def rounds(slots: "Slots", given: Given, noise_of: NoiseOf, *, maps: int) -> Iterator[Round]:
    """Settle N maps in slots of one fixed number: whoever has settled leaves, and the next one takes its
    place; without gradients.

    Args:
        slots: of the prior, made for what is given.
        noise_of: of the maps with these numbers among the N.
        maps: N.
    """
    waiting = iter(range(maps))
    slots.clear()
    slots.fill([*range(len(slots.maps))], waiting, given, noise_of)
    while slots.working:
        with torch.no_grad():
            settled = slots.round()
        yield Round(slots.maps.clone(), slots.codes.clone(), settled)
        slots.fill(settled.nonzero().flatten().tolist(), waiting, given, noise_of)


class Slots:
    """Places for S maps that are worked on together: what they are drawn given, and how much of each is right
    for good.

    All of it lies in the same memory for all maps, and a round is the same work on it: on a CUDA GPU it is
    recorded after some rounds, and is then one launch.

    Args:
        given: of all maps; later ones may have other labels, codes and settings of single maps.
        slots: S; free ones go on with the map that they had.
        forward: of the prior, in the precision that is wanted; twice S maps where they are guided.
    """

    WARM_UP = 2  # rounds before one is recorded

    def __init__(self, prior: Prior, given: Given, slots: int, forward: Forward):
        self.prior, self.forward = prior, forward
        device, places = prior.device, prior.level.places
        whole = dict(dtype=torch.int64, device=device)
        self.maps = torch.full((slots,), -1)  # of the slots, on the CPU; -1 where there is none
        self.codes = torch.zeros(slots, *prior.level.size, **whole)
        self.known = torch.full_like(self.codes, -1)
        self.right = torch.zeros(slots, **whole)  # places from the first that are
        self.noise = torch.zeros(slots, places, prior.K, device=device)
        self.place = torch.arange(places, device=device)
        self.labels = None if given.labels is None else torch.zeros(slots, **whole)
        self.above = tuple(torch.zeros(slots, *level.shape[1:], **whole) for level in given.above)
        # Settings of single maps, for each of their places
        self.choice = given.choice.of_maps(
            torch.zeros(slots * places, dtype=torch.int64), device, alike=False
        )
        self.taken = torch.zeros(slots, dtype=torch.int64)  # rounds of the maps that are in them, on the CPU
        self.rounds, self.replay = 0, None

    @property
    def working(self) -> bool:
        """Whether any slot holds a map."""
        return bool((self.maps >= 0).any())

    def clear(self) -> None:
        """No slot holds a map."""
        self.maps.fill_(-1)
        self.known.fill_(-1)

    def fill(self, free: list[int], waiting: Iterator[int], given: Given, noise_of: NoiseOf) -> None:
        """Give these slots to the maps that wait; slots for which there is none are left as they are."""
        taken = list(zip(free, waiting, strict=False))  # whichever ends first
        self.maps[free] = -1
        if not taken:
            return
        slots, maps = (torch.tensor(numbers) for numbers in zip(*taken, strict=True))
        self.maps[slots], self.taken[slots] = maps, 0
        device, (height, width) = self.codes.device, self.prior.level.size
        there = onto(slots, device)
        noise = noise_of(maps)
        rows = [noise(i, width).clone() for i in range(height)]
        self.noise[there] = torch.cat(rows, dim=1).to(self.noise.dtype)  # [n, T, K]
        self.codes[there] = self.noise[there].argmax(-1).view(-1, height, width)  # a draw of a uniform prior
        self.right[there] = 0
        if given.known is not None:
            self.known[there] = onto(given.known[maps], device)
        if given.labels is not None:
            self.labels[there] = onto(given.labels[maps], device)
        for mine, level in zip(self.above, given.above, strict=True):
            mine[there] = level[onto(maps, level.device)].to(device)
        for name, mine in self.choice.tensors().items():
            mine.view(len(self.maps), -1)[there] = onto(getattr(given.choice, name)[maps], device)[:, None]

    def round(self) -> Tensor:
        """One forward, and what it settles: [S] bool on the CPU, for which the host waits, once a round.

        Raises:
            RuntimeError: a map has not settled in more rounds than it has places, which no right device does.
        """
        self.rounds += 1
        if self.rounds == self.WARM_UP + 1 and graph.can_record(self.codes.device):
            self._record()
        self._work() if self.replay is None else self.replay()
        places = self.prior.level.places
        self.taken += 1
        if (self.taken[self.maps >= 0] > places + 1).any():
            raise RuntimeError(f"maps of {places} places have not settled in {places + 1} rounds")
        return (self.right == places).cpu() & (self.maps >= 0)

    def _record(self) -> None:
        """Have rounds be one launch from now on, where that can be."""
        before = self.codes.clone(), self.right.clone()
        try:
            (self.replay,) = graph.record_in_turn([self._work], self.codes.device)
        except RuntimeError as error:
            graph.say_not_recorded("rounds", error)
        self.codes.copy_(before[0])
        self.right.copy_(before[1])

    def _work(self) -> None:
        """New codes of all places from the codes as they are, and how far they are right now."""
        places, choice = self.prior.level.places, self.choice
        new = choice(self._logits().flatten(0, 1), self.noise.flatten(0, 1)).view_as(self.codes)
        new = torch.where(self.known < 0, new, self.known)

        # Right are the places up to the first that changed, itself included
        changed = (new != self.codes).flatten(1)
        changed &= self.place >= self.right[:, None]
        first = torch.where(changed, self.place, places).amin(1)
        self.codes.copy_(new)
        self.right.copy_((first + 1).clamp(max=places))

    def _logits(self) -> Tensor:
        """Logits [S, T, K] of the codes as they are now, guided."""
        guidance = self.choice.guidance
        if isinstance(guidance, Tensor):
            guidance = guidance.view(len(self.maps), -1)[:, 0]  # of each map: all its places have the same
        of_slots = self.codes, self.labels, self.above
        logits = full_logits(self.forward, *of_slots, self.prior.null_label, guidance)
        return logits.flatten(2).transpose(1, 2)


def settled_maps(all_rounds: Iterator[Round], maps: int, codes: Tensor) -> Tensor:
    """The maps, written into `codes` [N, h, w], and how many rounds each took: [N] int64 on the CPU."""
    taken = torch.zeros(maps, dtype=torch.int64)
    for at, guesses, settled in all_rounds:
        taken[at[at >= 0]] += 1
        codes[onto(at[settled], codes.device)] = guesses[onto(settled, guesses.device)]
    return taken
