"""Randomness as a function: of a seed and a place, not of what was drawn before.

SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators") in integer arithmetic, which
gives the same bits on every device.
"""

import hashlib

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # the constants of SplitMix64, as signed 64-bit numbers
MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
MIX_2 = 0x94D049BB133111EB - 2**64


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64, whose own shift repeats the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def hash64(*parts: int | Tensor) -> Tensor:
    """64 random-looking bits, int64, of integers or integer tensors; tensors are broadcast against each other."""
    state = torch.zeros((), dtype=torch.int64)
    for part in parts:
        part = part if isinstance(part, Tensor) else torch.tensor(part, dtype=torch.int64)
        x = state.to(part.device) * MIX_2 + (part + 1) * GOLDEN  # wraps around, as it should
        x = (x ^ _shift(x, 30)) * MIX_1
        x = (x ^ _shift(x, 27)) * MIX_2
        state = x ^ _shift(x, 31)
    return state


def uniform(bits: Tensor) -> Tensor:
    """Random bits, int64 -> fp32 strictly between 0 and 1.

    40 bits go in, so that values near 0 keep their relative precision; rounding to 1 is cut off.
    """
    return ((_shift(bits, 24).float() + 0.5) * 2.0**-40).clamp(max=1 - 2.0**-24)


def seed_of(*parts: int) -> int:
    """A seed in [0, 2^63) for torch from integers, such as (seed, step, rank)."""
    return int(hash64(*parts)) & (2**63 - 1)


def generator(*parts: int) -> torch.Generator:
    """A CPU generator that is a function of integers, such as (seed, step)."""
    return torch.Generator().manual_seed(seed_of(*parts))


def share_of(key: str) -> float:
    """A number in [0, 1) that is a function of a name alone: on every machine, whatever other names there are."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64
