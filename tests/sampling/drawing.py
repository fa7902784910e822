"""Maps drawn with the one loop from a prior's own cache, or from full forwards, and priors made of a
function."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vqprior.configs.schema import Stage2
from vqprior.runtime.codes import Codes, Level
from vqprior.sampling.choice import Choice
from vqprior.sampling.noise import Noise
from vqprior.sampling.sampler import map_of, rows
from vqprior.sampling.workspace import Workspace
from vqprior.stage2_prior.prior import Prior


def drawn(
    prior: Prior,
    labels: Tensor | None,
    noise: Noise,
    choice: Choice,
    *,
    maps: int,
    in_full: bool = False,
    dtype: torch.dtype | None = None,
    known: Tensor | None = None,
    above: Codes = (),
    workspace: Workspace | None = None,
) -> Tensor:
    """Codes [B, h, w] of B maps of the prior's size."""
    workspace = workspace or Workspace()
    cache = workspace.cache(prior, labels, above, choice, maps=maps, dtype=dtype, in_full=in_full)
    memory, height = workspace.rows, prior.level.height
    return map_of(rows(cache, noise, choice, memory, height, known))


class Fake(Prior):
    """A prior made of a function: codes [B, h, w] and labels [B] or None -> logits [B, K, h, w]; it has no
    cache of its own."""

    def __init__(self, function: Callable, level: Level, classes: int = 0):
        super().__init__(Stage2(label_dropout=0), level, classes)
        self.function, self.anchor = function, nn.Parameter(torch.zeros(()))

    def forward(
        self, codes: Tensor, labels: Tensor | None = None, above: Codes = (), dropped: None = None
    ) -> Tensor:
        return self.function(codes, labels)
