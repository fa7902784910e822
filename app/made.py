"""What a visitor has made: pictures, the codes that they are, and what they are a function of.

Legend: N pictures, C channels, H x W their size, h x w a code map.
"""

from typing import Any, NamedTuple, Self

from torch import Tensor

from vqprior.runtime.codes import Codes, picked
from vqprior.sampling.choice import Sampling

Place = tuple[int, int]
"""Row and column in a code map."""


class Made(NamedTuple):
    """Pictures, and all that they were made of."""

    codes: Codes  # of all levels, [N, h, w] on the CPU
    images: Tensor  # uint8 [N, C, H, W]
    labels: Tensor | None  # [N]; None where no class was told
    bits: Tensor  # fp64 [N], what the codes cost under the prior
    settings: dict[str, Any]  # plain values, which files are given

    def one(self, index: int) -> Self:
        """One of them alone."""
        at = slice(index, index + 1)
        labels = None if self.labels is None else self.labels[at]
        settings = {**self.settings, "picture": index}
        return type(self)(picked(self.codes, at), self.images[at], labels, self.bits[at], settings)

    def sorted(self) -> Self:
        """The likeliest first; `draws` of the settings says the number of each among all draws."""
        order = self.bits.argsort(stable=True)
        labels = None if self.labels is None else self.labels[order]
        settings = {**self.settings, "draws": order.tolist()}
        return type(self)(picked(self.codes, order), self.images[order], labels, self.bits[order], settings)


def settings_of(sampling: Sampling) -> dict[str, Any]:
    """What pictures are a function of besides the run and their class, as plain values."""
    return {"seed": sampling.seed, **vars(sampling.choice), "precision": sampling.precision}


def redrawn(made: Made, level: int, place: Place, sampling: Sampling) -> dict[str, Any]:
    """The settings of a picture whose codes after a place are drawn anew."""
    change = {"level": level, "redrawn_after": list(place), **settings_of(sampling)}
    return and_then(made.settings, change)


def and_then(settings: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """The settings of what was made otherwise, and then changed."""
    return {**settings, "changes": [*settings.get("changes", ()), change]}
