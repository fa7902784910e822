"""Proof that codes are those of the prior and the noise: a full forward over finished maps must choose them.

Whichever way maps were drawn, code by code from a cache or by whole maps, each code must be the choice from
the logits that the full forward gives, given all codes before it, and the noise of its image. Rounding may
turn a tie; a difference that is no tie is an error.

Legend: B maps, h x w the map, K codes.
"""

from collections.abc import Iterable
from typing import NamedTuple, Self

from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Precision

TOLERANCE: dict[Precision, float] = {"no": 1e-3, "tf32": 2e-2, "bf16": 0.5, "fp16": 5e-2}
"""How far apart two logits may be and yet tie. Logits are sums of some hundred products, of about 10 in size:
fp32 rounds them to some 1e-5, of which this is a hundred times; numbers of 8 and 10 bits, to that many parts
of the same sums."""


class Verified(NamedTuple):
    """What a full forward says of drawn codes."""

    codes: int  # that were drawn
    differing: int  # that it would choose otherwise
    nearest_tie: float  # the smallest gap between the best and the second best, over all codes
    largest_gap: float  # by which it prefers another code to a drawn one; 0 where none differs

    @classmethod
    def joined(cls, parts: Iterable[Self]) -> Self:
        """Of all parts together."""
        codes, differing, ties, gaps = zip(*parts, strict=True)
        return cls(sum(codes), sum(differing), min(ties), max(gaps))

    def in_words(self) -> str:
        """For the user."""
        tie = f"the nearest tie at {self.nearest_tie:.2g}"
        return f"{self.differing:,} of {self.codes:,} codes differ from those of a full forward, {tie}"

    def refuse(self, precision: Precision) -> None:
        """Raise a UserError if a code differs that is no tie."""
        allowed = TOLERANCE[precision]
        if self.largest_gap > allowed:
            raise UserError(
                f"{self.in_words()}, and one is {self.largest_gap:.3g} apart, where rounding (precision "
                f"{precision}) may move {allowed:g}: these are no samples of this prior. Draw them anew with "
                "--method plain, and please report it"
            )


def verified(perturbed: Tensor, codes: Tensor, drawn: Tensor) -> Verified:
    """Compare codes [B, h, w] with restricted logits and noise, added up: [B, h, w, K].

    Args:
        drawn: bool [B, h, w], false where a code was known and not drawn.
    """
    if not drawn.any():
        return Verified(0, 0, float("inf"), 0.0)
    best = perturbed.topk(2, dim=-1)
    own = perturbed.gather(-1, codes[..., None])[..., 0]
    differs = (best.indices[..., 0] != codes) & drawn
    gaps = (best.values[..., 0] - own)[differs]
    ties = (best.values[..., 0] - best.values[..., 1])[drawn]
    return Verified(
        int(drawn.sum()),
        int(differs.sum()),
        ties.min().item(),
        gaps.max().item() if len(gaps) else 0.0,
    )
