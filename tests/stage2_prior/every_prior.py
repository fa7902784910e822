"""Small priors of every kind, with opinions."""

from collections.abc import Sequence

import torch

from vqprior.configs.schema import GatedPixelCNN, PixelSNAIL, Stage2, Stage2Fine, Transformer
from vqprior.runtime.codes import Codes, Level
from vqprior.stage2_prior.prior import Prior
from vqprior.stage2_prior.priors import PRIORS, build

KINDS = [*PRIORS]
OWN = {
    "gated_pixelcnn": {"gated_pixelcnn": GatedPixelCNN(head=8)},
    "pixelsnail": {"pixelsnail": PixelSNAIL(blocks=2, heads=2)},
    "transformer": {"transformer": Transformer(heads=2)},
}
"""Settings of a kind that are not its defaults; a kind that is not here is tested at its defaults."""


def settings(kind: str, *, fine: bool = False, **others: object) -> Stage2:
    """Of a small prior of a kind, of a finer level if asked."""
    small = dict(prior=kind, channels=8, layers=4, **OWN.get(kind, {}))
    return (Stage2Fine if fine else Stage2)(**(small | others))


def opinionated(
    kind: str,
    level: Level,
    classes: int = 0,
    above: Sequence[Level] = (),
    dtype: torch.dtype = torch.float64,
    spread: float = 0.3,
    **others: object,
) -> Prior:
    """A prior whose weights are all random, those of the output too."""
    torch.manual_seed(0)
    prior = build(settings(kind, fine=bool(above), **others), [*above, level], classes).to(dtype).eval()
    for name, parameter in prior.named_parameters():
        torch.nn.init.normal_(parameter, std=1.0 if "logits" in name else spread)
    return prior.requires_grad_(False)


def some_codes(levels: Sequence[Level], maps: int, seed: int = 0) -> Codes:
    """Codes of each level, by chance."""
    chance = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(level.K, (maps, *level.size), generator=chance) for level in levels)
