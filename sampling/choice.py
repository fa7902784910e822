"""How a code is chosen from logits: the temperature, then top-k, then top-p, then Gumbel-max.

Each setting, guidance included, is one for all maps or one for each of them.

Legend: B maps, K codes.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Drawing, Method, Precision
from vqprior.runtime.transfer import onto

Setting = float | Tensor
"""One number for all maps, or one for each: [B], fp32, or int64 for top-k."""


def of_maps(setting: Setting, maps: Tensor, device: torch.device, *, alike: bool = True) -> Setting:
    """The setting of the maps with these indices [n], on the device; one number where they share it, if they
    may be treated alike: that is faster."""
    if not isinstance(setting, Tensor):
        return setting
    values = setting[maps]
    return values[0].item() if alike and (values == values[0]).all() else onto(values, device)


def along(setting: Setting, logits: Tensor) -> Setting:
    """The setting in a shape that meets logits [B, ...]."""
    return setting.view(-1, *[1] * (logits.ndim - 1)) if isinstance(setting, Tensor) else setting


def likelier(logits: Tensor) -> Tensor:
    """For each code of logits [B, K] the probability of all that are likelier; of equal ones the first is."""
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    return torch.empty_like(before).scatter(-1, order, before)


@dataclass(frozen=True, eq=False)
class Choice:
    """How a code is chosen from logits: after guidance first the temperature, then top-k, then top-p.

    Raises:
        UserError: a number out of its range.
    """

    temperature: Setting = 1.0
    top_k: int | Tensor = 0  # 0: all codes
    top_p: Setting = 1.0  # 1: all codes
    guidance: Setting = 1.0  # 1: the prior as it is; of logits before they come here (sampler.Guided)

    def __post_init__(self):
        for name, setting in vars(self).items():
            for value in {*setting.tolist()} if isinstance(setting, Tensor) else [setting]:
                try:
                    Drawing(**{name: value})  # which knows the ranges
                except ValueError as error:
                    raise UserError(str(error)) from error

    def of_maps(self, maps: Tensor, device: torch.device, *, alike: bool = True) -> "Choice":
        """The choice of the maps with these indices [n], on the device; see the function of this name."""
        settings = {name: of_maps(setting, maps, device, alike=alike) for name, setting in vars(self).items()}
        return replace(self, **settings)

    def kind(self) -> tuple[float | None, ...]:
        """The settings that are numbers, and None for each that is one for each map."""
        return tuple(None if isinstance(setting, Tensor) else setting for setting in vars(self).values())

    def tensors(self) -> dict[str, Tensor]:
        """The settings that are one number for each map, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def restrict(self, logits: Tensor) -> Tensor:
        """Logits [B, K] -> the same over the temperature, with -inf for the codes that may not be drawn.

        top-k keeps the k largest; top-p keeps the fewest likeliest whose probabilities, renormalised after
        top-k, add up to at least p (Holtzman et al. 2019, arXiv 1904.09751). Equal logits are kept or dropped
        together in top-k.
        """
        logits = self.scaled(logits)
        K = logits.shape[-1]
        if isinstance(self.top_k, Tensor):
            # of the last one kept; of the very last for 0
            rank = along((self.top_k.clamp(max=K) - 1) % K, logits)
            least = logits.sort(dim=-1, descending=True).values.gather(-1, rank)
            logits = logits.masked_fill(logits < least, -torch.inf)
        elif 0 < self.top_k < K:
            least = logits.topk(self.top_k, dim=-1).values[..., -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if isinstance(self.top_p, Tensor) or self.top_p < 1:
            enough = likelier(logits) >= along(self.top_p, logits)
            if isinstance(self.top_p, Tensor):
                enough &= along(self.top_p < 1, logits)  # 1 keeps all, however the sum is rounded
            logits = logits.masked_fill(enough, -torch.inf)
        return logits

    def scaled(self, logits: Tensor) -> Tensor:
        """Logits [B, K] over the temperature, in fp32 or more."""
        kind = torch.promote_types(logits.dtype, torch.float32)
        return logits.to(kind) / along(self.temperature, logits)

    def edges(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Whether each code of logits [B, K] may be drawn, and how far two logits over the temperature would
        have to move against each other for it to change sides; infinite where nothing is restricted.

        That is the way to the last code on the other side, or, of top-p, the way of the log-odds of all
        likelier codes to those of p, if that is shorter.
        """
        scaled = self.scaled(logits)
        inside = self.restrict(logits) > -torch.inf
        last_in = scaled.masked_fill(~inside, torch.inf).amin(-1, keepdim=True)
        first_out = scaled.masked_fill(inside, -torch.inf).amax(-1, keepdim=True)
        way = torch.where(inside, scaled - first_out, last_in - scaled)
        if isinstance(self.top_p, Tensor) or self.top_p < 1:
            in_top_k = replace(self, top_p=1.0).restrict(logits)
            p = torch.as_tensor(self.top_p, dtype=scaled.dtype, device=scaled.device)
            odds = likelier(in_top_k).clamp(0, 1).logit() - along(p.expand(len(logits)), scaled).logit()
            way = torch.minimum(way, odds.abs().nan_to_num(torch.inf))  # p of 1 restricts nothing
        return inside, way

    def __call__(self, logits: Tensor, noise: Tensor) -> Tensor:
        """Gumbel-max: logits and noise [B, K] -> codes [B].

        Under rounding of the logits it is far steadier than the inverse of a cumulative sum: a code changes
        only where the two best perturbed logits tie.
        """
        return (self.restrict(logits) + noise).argmax(dim=-1)


@dataclass(frozen=True, eq=False)
class Sampling:
    """All that images drawn from a prior depend on besides their numbers and labels, and how many are drawn
    at once."""

    seed: int = 0
    choice: Choice = Choice()
    precision: Precision = "no"
    batch_size: int = 64
    method: Method = "auto"

    @classmethod
    def of(cls, settings: Drawing, batch_size: int) -> Self:
        """As settings say that are the same for all images."""
        choice = Choice(settings.temperature, settings.top_k, settings.top_p, settings.guidance)
        return cls(settings.seed, choice, settings.precision, batch_size, settings.method)
