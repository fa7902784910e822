"""How likely code maps are: under the prior, and under models that know no neighbours."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from configs.schema import Precision
from runtime.code_maps import CodeSplit
from runtime.launch import autocast
from runtime.loader import chunks, padded
from runtime.processes import share_of_process, sum_numbers

from .pixelcnn import PixelCNN


@torch.no_grad()
def bits_per_code(prior: PixelCNN, split: CodeSplit, *, batch: int, precision: Precision, images: int | None = None) -> float:
    """Mean negative log-likelihood of a split's codes (or of its first `images` maps), in bits a code."""
    device, total, codes_seen = prior.device, 0.0, 0
    training = prior.training
    prior.eval()
    for chunk in chunks(min(len(split), images or len(split)), batch, share_of_process()):
        indices = padded(chunk, batch)
        codes = split.codes(indices).to(device)
        labels = split.labels[indices].to(device) if prior.classes else None
        with autocast(device, precision):
            logits = prior(codes, labels).float()
        logits = rearrange(logits[: len(chunk)], "b k h w -> (b h w) k")
        loss = F.cross_entropy(logits, codes[: len(chunk)].flatten(), reduction="sum")
        total, codes_seen = total + loss.item(), codes_seen + codes[: len(chunk)].numel()
    prior.train(training)
    total, codes_seen = sum_numbers([total, codes_seen])
    return total / codes_seen / math.log(2)


@torch.no_grad()
def log2_prob(prior: PixelCNN, codes: Tensor, labels: Tensor | None, *, precision: Precision = "no") -> Tensor:
    """log2 p(codes | label) of each map: codes [B, h, w] and labels [B] on the prior's device -> [B] fp64 on the CPU.

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


def unigram_bits(train: Tensor, held_out: Tensor) -> float:
    """Bits a code of held-out counts [places, K] under the frequencies of training counts (one added to each code)."""
    p = train.sum(0) + 1
    return -(held_out.sum(0) * (p / p.sum()).log2()).sum().item() / held_out.sum().item()


def per_position_bits(train: Tensor, held_out: Tensor) -> float:
    """As `unigram_bits`, with frequencies of its own at each place; K draws from the unigram are added to each."""
    unigram = train.sum(0) + 1
    p = train + unigram / unigram.sum() * len(unigram)
    return -(held_out * (p / p.sum(1, keepdim=True)).log2()).sum().item() / held_out.sum().item()
