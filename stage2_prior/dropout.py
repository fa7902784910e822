"""Dropout of whole channels, as a function of a seed and of the place in the order of a run.

Whole channels are as good here as single features, and much cheaper to draw.

Legend: B maps, C channels.
"""

import torch
from torch import Tensor

from vqprior.runtime.randomness import Stream, hash64, uniform
from vqprior.runtime.transfer import onto


def channel_keys(seed: int, positions: Tensor, groups: int) -> Tensor:
    """What the factors of so many groups of channels are drawn from, for maps at these positions [B]: [B,
    groups] int64, little work for the CPU."""
    return hash64(seed, Stream.DROPOUT, positions[:, None], torch.arange(groups))


def channel_factors(keys: Tensor, channels: int, dropped: float) -> Tensor:
    """Factors [B, groups, C] of channels: 0 for a share `dropped` of them, and more than 1 for the others, so
    that the mean stays."""
    if keys.device.type == "mps":  # whose arithmetic on 64 bits is not relied on (see sampling/self_check.py)
        return onto(channel_factors(keys.cpu(), channels, dropped), keys.device)
    chance = uniform(hash64(torch.arange(channels, device=keys.device), after=keys[:, :, None]))
    return (chance >= dropped).float() / (1 - dropped)
