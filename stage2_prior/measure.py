"""How likely code maps are: under the prior, and under models that know no neighbours."""

import math
from collections.abc import Sequence
from functools import reduce
from operator import add

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vqprior.configs.schema import Precision
from vqprior.runtime.chunks import chunks
from vqprior.runtime.code_maps import CodeSplit
from vqprior.runtime.codes import Codes, Level, codes_onto
from vqprior.runtime.evaluating import evaluating
from vqprior.runtime.launch import autocast
from vqprior.runtime.processes import share_of_process, sum_numbers
from vqprior.runtime.randomness import some_of
from vqprior.runtime.transfer import onto

from .prior import Prior


@torch.no_grad()
def bits_by_position(
    prior: Prior,
    split: CodeSplit,
    *,
    batch: int,
    precision: Precision,
    images: int | None = None,
    name: str = "",
) -> Tensor:
    """Mean negative log-likelihood, in bits, of the code at each place of the maps of the prior's level, [h,
    w] fp64.

    Args:
        split: with the levels down to the prior's.
        images: so many of the maps, chosen by chance but always the same; all where it is not given.
        name: of a bar, where one is to be shown.
    """
    device, chosen = prior.device, some_of(len(split), images or len(split))
    total = torch.zeros(prior.level.size, dtype=torch.float64)
    with evaluating(prior):
        for chunk in chunks(chosen, batch, share_of_process(), name=name):
            indices = chunk.padded
            *above, codes = codes_onto(split.codes(indices), device)
            labels = onto(split.labels[indices], device) if prior.classes else None
            with autocast(device, precision):
                logits = prior(codes, labels, tuple(above)).float()
            rows = rearrange(chunk.own(logits), "b k h w -> (b h w) k")
            nats = F.cross_entropy(rows, chunk.own(codes).flatten(), reduction="none")
            total += nats.view(-1, *total.shape).cpu().double().sum(0)
    nats = torch.tensor(sum_numbers(total.flatten().tolist()), dtype=torch.float64)
    return nats.view_as(total) / len(chosen) / math.log(2)


def bits_per_code(
    prior: Prior, split: CodeSplit, *, batch: int, precision: Precision, images: int | None = None
) -> float:
    """The mean of `bits_by_position` over the places, in bits a code."""
    return bits_by_position(prior, split, batch=batch, precision=precision, images=images).mean().item()


@torch.no_grad()
def posterior_accuracy(
    priors: Sequence[Prior], split: CodeSplit, *, batch: int, precision: Precision, images: int
) -> float:
    """Share of so many of a split's images (see `bits_by_position`) whose own label is arg max over y of
    p(codes of all levels | y): a classifier for free."""
    hits, chosen = 0, some_of(len(split), images)
    for chunk in chunks(chosen, batch, share_of_process(), name="posterior"):
        codes = codes_onto(split.codes(chunk.padded), priors[0].device)
        bits = []
        for label in range(priors[0].classes):
            labels = torch.full((batch,), label, device=priors[0].device)
            bits.append(log2_prob_of_levels(priors, codes, labels, precision=precision))
        likeliest = chunk.own(torch.stack(bits, 1).argmax(1))
        hits += (likeliest == split.labels[chunk.items]).sum().item()
    return sum_numbers([hits])[0] / len(chosen)


def log2_prob(prior: Prior, codes: Codes, labels: Tensor | None, *, precision: Precision = "no") -> Tensor:
    """log2 p(codes of its level | label, levels above) of each map, [B] fp64 on the CPU.

    It is at most 0; minus it is what the map costs, in bits.

    Args:
        codes: of the levels down to the prior's, on its device, as labels [B] are.
    """
    return _log_prob_of_places(prior, codes, labels, precision).sum((1, 2)) / math.log(2)


def log2_prob_of_places(
    prior: Prior,
    codes: Codes,
    labels: Tensor | None,
    *,
    precision: Precision = "no",
) -> Tensor:
    """The summands of `log2_prob`: that of each code given those before it, [B, h, w] fp64 on the CPU."""
    return _log_prob_of_places(prior, codes, labels, precision) / math.log(2)


@torch.no_grad()
def _log_prob_of_places(prior: Prior, codes: Codes, labels: Tensor | None, precision: Precision) -> Tensor:
    """The same in nats."""
    *above, own = codes
    with autocast(prior.device, precision):
        logits = prior(own, labels, tuple(above))
    log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=1)  # [B, K, h, w]
    return log_p.gather(1, own[:, None])[:, 0].cpu().double()


def log2_prob_of_levels(
    priors: Sequence[Prior],
    codes: Codes,
    labels: Tensor | None,
    *,
    precision: Precision = "no",
) -> Tensor:
    """log2 p(codes of all levels | label) of each image, [B] fp64 on the CPU."""
    of_levels = (
        log2_prob(prior, codes[: level + 1], labels, precision=precision)
        for level, prior in enumerate(priors)
    )
    return reduce(add, of_levels)


def position_counts(split: CodeSplit, level: Level) -> Tensor:
    """How often each code stands at each place of the finest level that the split has, [places, K] fp64; read
    a part at a time."""
    places, K = level.places, level.K
    counts = torch.zeros(places * K, dtype=torch.int64)
    for indices in torch.arange(len(split)).split(4096):
        codes = split.codes(indices)[-1].flatten(1)  # [n, places]
        counts += torch.bincount((codes + torch.arange(places) * K).flatten(), minlength=places * K)
    return counts.view(places, K).double()


def code_frequencies(train: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities from counts [places, K] of training codes: a unigram's [K] and a per-position model's
    [places, K].

    One is added to the count of each code; each place adds K draws from the unigram to its own counts.
    """
    unigram = train.sum(0) + 1
    unigram = unigram / unigram.sum()
    places = train + unigram * len(unigram)
    return unigram, places / places.sum(1, keepdim=True)


def bits_by_place(train: CodeSplit, held_out: CodeSplit, level: Level) -> float:
    """Bits a code of held-out codes under the model that knows how often each training code stands at each
    place, and no neighbours: what a prior has to beat."""
    _, places = code_frequencies(position_counts(train, level))
    return cross_entropy_bits(position_counts(held_out, level), places)


def cross_entropy_bits(held_out: Tensor, p: Tensor) -> float:
    """Bits a code of held-out counts [places, K] under probabilities [K], or [places, K]."""
    return -(held_out * p.log2()).sum().item() / held_out.sum().item()
