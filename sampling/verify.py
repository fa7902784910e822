"""Proof that codes are those of the prior and the noise: a full forward over finished maps must choose them.

Whichever way maps were drawn, code by code from a cache or by whole maps, each code must be the choice from
the logits that the full forward gives, given all codes before it, and the noise of its image. Rounding may
turn a tie, and move a code over the edge of top-k or top-p; a difference that it cannot make is an error.

Legend: B maps, h x w the map, K codes.
"""

from collections.abc import Iterable
from math import inf, isfinite
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Precision

from .choice import Choice, along
from .noise import Noise

TOLERANCE: dict[Precision, float] = {"no": 1e-3, "tf32": 2e-2, "bf16": 0.5, "fp16": 5e-2}
"""How far apart two logits may be and yet tie. Logits are sums of some hundred products, of about 10 in size:
fp32 rounds them to some 1e-5, of which this is a hundred times; numbers of 8 and 10 bits, to that many parts
of the same sums."""


class Verified(NamedTuple):
    """What a full forward says of drawn codes; gaps are of logits, before they are divided by the
    temperature, and in guided ones as many times smaller as guidance makes their rounding larger."""

    codes: int  # that were drawn
    differing: int  # that it would choose otherwise
    nearest_tie: float  # least gap between the best and the second best; infinite where there is no second
    # by which logits would have to move for all drawn codes to be its choice; infinite where some are no
    # finite numbers
    largest_gap: float

    @classmethod
    def joined(cls, parts: Iterable[Self]) -> Self:
        """Of all parts together; of none, that nothing was drawn."""
        codes, differing, ties, gaps = zip(cls(0, 0, inf, 0.0), *parts, strict=True)
        return cls(sum(codes), sum(differing), min(ties), max(gaps))

    def figures(self) -> dict[str, Any]:
        """For a JSON file, which knows no infinity: None where there is no second best, and where logits are
        no finite numbers."""
        return {name: value if isfinite(value) else None for name, value in self._asdict().items()}

    @classmethod
    def of_figures(cls, figures: dict[str, Any]) -> Self:
        """What `figures` gave."""
        return cls(**{name: inf if value is None else value for name, value in figures.items()})

    def in_words(self) -> str:
        """For the user."""
        tie = f"the nearest tie at {self.nearest_tie:.2g}" if isfinite(self.nearest_tie) else "no second best"
        return f"{self.differing:,} of {self.codes:,} codes differ from those of a full forward, {tie}"

    def refuse(self, precision: Precision) -> None:
        """Raise a UserError if a code differs by more than rounding."""
        allowed = TOLERANCE[precision]
        if not isfinite(self.largest_gap):
            found = f"{self.differing:,} of {self.codes:,} codes differ from those of a full forward"
            raise UserError(
                f"{found}: some logits over the temperature are no finite numbers, so these are no samples "
                "of this prior. Its weights are damaged, or guidance, the temperature or precision "
                f"{precision} takes them out of range"
            )
        if self.largest_gap > allowed:
            raise UserError(
                f"{self.in_words()}, and one is {self.largest_gap:.3g} apart, where rounding (precision "
                f"{precision}) may move {allowed:g}: these are no samples of this prior. Draw them anew with "
                "--method plain, and please report it"
            )


class Judged(NamedTuple):
    """What a full forward says of each code at each place, [B, h, w, K] each."""

    perturbed: Tensor  # logits over the temperature, and the noise
    allowed: Tensor  # by top-k and top-p: bool
    edge: Tensor  # how far logits would have to move for that to change, see Choice.edges

    @classmethod
    def of(cls, choice: Choice, logits: Tensor, noise: Noise) -> Self:
        """From guided logits [B, K, h, w]."""
        rows = []
        for i, of_row in enumerate(logits.unbind(2)):
            chance = noise(i, of_row.shape[2])
            places = [
                (choice.scaled(here) + chance[:, j], *choice.edges(here))
                for j, here in enumerate(of_row.unbind(2))
            ]
            rows.append([torch.stack(parts, 1) for parts in zip(*places, strict=True)])
        return cls(*(torch.stack(parts, 1) for parts in zip(*rows, strict=True)))


def verified(
    judged: Judged,
    codes: Tensor,
    drawn: Tensor,
    temperature: float | Tensor = 1.0,
    guidance: float | Tensor = 1.0,
) -> Verified:
    """Compare codes [B, h, w] with what a full forward would choose.

    A drawn code is right up to a gap if logits that move by no more against each other may make it the
    choice: it may be drawn, and each other code is no better or may not be drawn.

    Args:
        drawn: bool [B, h, w], false where a code was known and not drawn.
        temperature, guidance: of all maps, or [B]. Guided logits g c + (1 - g) u hold the rounding of both.
    """
    if not drawn.any():
        return Verified(0, 0, inf, 0.0)
    possible = judged.perturbed.masked_fill(~judged.allowed, -inf)
    best = possible.topk(2, dim=-1)
    own = lambda of_codes: of_codes.gather(-1, codes[..., None])
    ahead = torch.minimum(judged.perturbed - own(judged.perturbed), judged.edge)
    ahead = ahead.masked_fill(~judged.allowed, -inf)
    outside = own(judged.edge)[..., 0].masked_fill(own(judged.allowed)[..., 0], 0)
    g = along(guidance, outside)
    scale = along(temperature, outside) / (abs(g) + abs(1 - g))
    sound = judged.perturbed.isfinite().all(-1)
    gap = (torch.maximum(ahead.amax(-1), outside) * scale).masked_fill(~sound, inf)
    tie = ((best.values[..., 0] - best.values[..., 1]) * scale).masked_fill(~sound, inf)
    differs = ((best.indices[..., 0] != codes) | ~sound) & drawn
    return Verified(
        int(drawn.sum()),
        int(differs.sum()),
        tie[drawn].min().item(),
        gap[differs].amax().item() if differs.any() else 0.0,
    )
