"""How likely code maps are: under the prior, and under models that know no neighbours."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vqprior.configs.schema import Precision
from vqprior.runtime.code_maps import CodeSplit
from vqprior.runtime.evaluating import evaluating
from vqprior.runtime.launch import autocast
from vqprior.runtime.loader import chunks, padded
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
) -> Tensor:
    """Mean negative log-likelihood, in bits, of the code at each place of a split's maps, [h, w] fp64.

    Args:
        images: so many of the maps, chosen by chance but always the same; all where it is not given.
    """
    device, chosen = prior.device, some_of(len(split), images or len(split))
    total = torch.zeros(split.shards[0].shape[1:], dtype=torch.float64)
    with evaluating(prior):
        for chunk in chunks(len(chosen), batch, share_of_process()):
            indices = chosen[padded(chunk, batch)]
            codes = onto(split.codes(indices), device)
            labels = onto(split.labels[indices], device) if prior.classes else None
            with autocast(device, precision):
                logits = prior(codes, labels).float()
            rows = rearrange(logits[: len(chunk)], "b k h w -> (b h w) k")
            nats = F.cross_entropy(rows, codes[: len(chunk)].flatten(), reduction="none")
            total += nats.view(len(chunk), *total.shape).cpu().double().sum(0)
    nats = torch.tensor(sum_numbers(total.flatten().tolist()), dtype=torch.float64)
    return nats.view_as(total) / len(chosen) / math.log(2)


def bits_per_code(
    prior: Prior, split: CodeSplit, *, batch: int, precision: Precision, images: int | None = None
) -> float:
    """The mean of `bits_by_position` over the places, in bits a code."""
    return bits_by_position(prior, split, batch=batch, precision=precision, images=images).mean().item()


@torch.no_grad()
def posterior_accuracy(
    prior: Prior, split: CodeSplit, *, batch: int, precision: Precision, images: int
) -> float:
    """Share of so many of a split's maps (see `bits_by_position`) whose own label is arg max over y of
    p(codes | y): a classifier for free."""
    hits, chosen = 0, some_of(len(split), images)
    for chunk in chunks(len(chosen), batch, share_of_process()):
        codes = onto(split.codes(chosen[padded(chunk, batch)]), prior.device)
        bits = [
            log2_prob(prior, codes, torch.full((batch,), label, device=prior.device), precision=precision)
            for label in range(prior.classes)
        ]
        hits += (torch.stack(bits, 1).argmax(1)[: len(chunk)] == split.labels[chosen[chunk]]).sum().item()
    return sum_numbers([hits])[0] / len(chosen)


@torch.no_grad()
def log2_prob(prior: Prior, codes: Tensor, labels: Tensor | None, *, precision: Precision = "no") -> Tensor:
    """log2 p(codes | label) of each map: codes [B, h, w] and labels [B] on the prior's device -> [B] fp64.

    It is at most 0; minus it is what the map costs, in bits.
    """
    with autocast(prior.device, precision):
        logits = prior(codes, labels)
    log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=1)  # [B, K, h, w]
    return log_p.gather(1, codes[:, None]).cpu().double().sum((1, 2, 3)) / math.log(2)


def position_counts(split: CodeSplit, K: int) -> Tensor:
    """How often each code stands at each place of a split's maps, [places, K] fp64; read a part at a time."""
    places = split.shards[0][0].size
    counts = torch.zeros(places * K, dtype=torch.int64)
    for indices in torch.arange(len(split)).split(4096):
        codes = split.codes(indices).flatten(1)  # [n, places]
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


def cross_entropy_bits(held_out: Tensor, p: Tensor) -> float:
    """Bits a code of held-out counts [places, K] under probabilities [K], or [places, K]."""
    return -(held_out * p.log2()).sum().item() / held_out.sum().item()
