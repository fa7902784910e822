"""Whether a device can be trusted with what is silently wrong when it is wrong; looked at on its first use,
once a process.

Looked at are Apple's GPUs alone: their whole numbers of 64 bits have been through fp32 before, and products
that are written into views of other tensors have left them as they were.
"""

from functools import cache

import torch
from torch import Tensor

from vqprior.configs.schema import Stage2
from vqprior.runtime.codes import Level
from vqprior.runtime.processes import say
from vqprior.runtime.randomness import generator, hash64, uniform
from vqprior.stage2_prior.prior import Prior

DOUBTED = ("mps",)  # kinds of devices
SMALL = Stage2(channels=16, layers=3)  # fits every kind of prior
TOLERANCE = 1e-3  # of logits about 1


@cache
def hashes(device: torch.device) -> bool:
    """Whether a device hashes as the CPU does, bit for bit; if not, that is said."""
    if device.type not in DOUBTED:
        return True
    images, places = torch.arange(5) * 2**33 + 1, torch.arange(7)
    here, there = (
        hash64(hash64(3, x)[:, None], y)
        for x, y in ((images, places), (images.to(device), places.to(device)))
    )
    exact = torch.equal(there.cpu(), here) and torch.equal(uniform(there).cpu(), uniform(here))
    if not exact:
        say(
            f"{device} computes with whole numbers of 64 bits otherwise than the CPU: the noise is made on "
            "the CPU"
        )
    return exact


@cache
def caches(device: torch.device, kind: type[Prior]) -> bool:
    """Whether the cached logits of a small prior of a kind on a device are those of its full forward on the
    CPU; if not, that is said."""
    if device.type not in DOUBTED:
        return True
    prior, labels = _small_prior(kind), torch.tensor([0, 1, 1])
    codes = torch.randint(prior.K, (3, 4, 4), generator=generator(0, 9))
    with torch.no_grad():
        expected = prior(codes, labels)
        logits = _cached_logits(prior.to(device), codes.to(device), labels.to(device)).cpu()
    right = (logits - expected).abs().max().item() < TOLERANCE  # false where it is not a number
    if not right:
        say(
            f"{device} gives other logits cached than the CPU in full: each code takes a full forward, which "
            "is slow"
        )
    return right


def _small_prior(kind: type[Prior]) -> Prior:
    """A prior with opinions, always the same; the state of torch's own generator stays what it is."""
    chance = generator(0, 8)
    with torch.random.fork_rng(devices=[]):
        prior = kind(SMALL, Level(8, 4, 4), 2).float().eval()
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=chance)
    return prior.requires_grad_(False)


def _cached_logits(prior: Prior, codes: Tensor, labels: Tensor) -> Tensor:
    """The logits [B, K, h, w] of codes [B, h, w] given labels [B], one place after the other."""
    cache = prior.cache(labels, maps=len(codes))
    logits = torch.empty(len(codes), prior.K, *codes.shape[1:], device=codes.device)
    for i in range(codes.shape[1]):
        cache.begin_row(i)
        for j in range(codes.shape[2]):
            logits[:, :, i, j] = cache.logits(j)
            cache.put(j, codes[:, i, j])
    return logits
