"""Randomness as a function: of a seed and a place, not of what was drawn before.

SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators") in integer
arithmetic, which gives the same bits on every device.
"""

import hashlib

import torch
from torch import Tensor


class Stream:
    """What is drawn by chance in a run: the part of every hash and seed that stands behind the run's seed.

    The numbers stay what they are, since whatever was trained is a function of them. Two streams of one
    number never meet: `STAGE1_WEIGHTS` seeds torch's own generator, and `AUGMENTATION` hashes places.
    """

    ORDER = 0
    AUGMENTATION = 1
    STAGE1_WEIGHTS = 1
    KMEANS = 2
    RESTARTS = 3
    STAGE2_WEIGHTS = 4
    DROPOUT = 5
    HIDDEN_LABELS = 6
    COPIES = 7  # the augmented versions that are encoded
    FEATURES = 8  # the classifier of stage1.perceptual
    ADVERSARY = 9  # how it sees pictures moved and mirrored
    ADVERSARY_WEIGHTS = 10
    SOME = 7  # items that `some_of` takes, under a seed of its own


GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # the constants of SplitMix64, as signed 64-bit numbers
MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
MIX_2 = 0x94D049BB133111EB - 2**64


def _shift(x: Tensor, bits: int, out: Tensor | None = None) -> Tensor:
    """Logical right shift of int64, whose own shift repeats the sign."""
    return torch.bitwise_right_shift(x, bits, out=out).bitwise_and_((1 << (64 - bits)) - 1)


def hash64(
    *parts: int | Tensor, after: Tensor | None = None, buffers: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """64 random-looking bits, int64, of integers or integer tensors; tensors are broadcast against each
    other.

    Nothing here waits for a device: numbers stay on the CPU, where they may meet the tensors of any device.

    Args:
        after: the hash of parts before these: `hash64(b, after=hash64(a))` is `hash64(a, b)`.
        buffers: two int64 tensors of the result's shape to work in, for a call that is made again and again;
            the first becomes the result.
    """
    state = torch.zeros((), dtype=torch.int64) if after is None else after
    for index, part in enumerate(parts, 1):
        part = part if isinstance(part, Tensor) else torch.tensor(part, dtype=torch.int64)
        result, shifted = buffers if buffers and index == len(parts) else (None, None)
        if part.device.type == "mps":  # whether a number of the CPU keeps its 64 bits there is not known
            state = state.to(part.device)
        state = torch.add(state * MIX_2, (part + 1) * GOLDEN, out=result)  # wraps around, as it should
        shifted = torch.empty_like(state) if shifted is None else shifted
        for bits, factor in ((30, MIX_1), (27, MIX_2), (31, 1)):
            state.bitwise_xor_(_shift(state, bits, out=shifted)).mul_(factor)
    return state


def uniform(bits: Tensor, out: Tensor | None = None) -> Tensor:
    """Random bits, int64 -> fp32 strictly between 0 and 1.

    40 bits go in, so that values near 0 keep their relative precision; rounding to 1 is cut off.

    Args:
        out: fp32, for the result; the bits are overwritten then.
    """
    if out is None:
        out, bits = torch.empty(bits.shape, device=bits.device), bits.clone()
    return out.copy_(_shift(bits, 24, out=bits)).add_(0.5).mul_(2.0**-40).clamp_(max=1 - 2.0**-24)


def seed_of(*parts: int) -> int:
    """A seed in [0, 2^63) for torch from integers, such as (seed, step, rank)."""
    return int(hash64(*parts)) & (2**63 - 1)


def generator(*parts: int) -> torch.Generator:
    """A CPU generator that is a function of integers, such as (seed, step)."""
    return torch.Generator().manual_seed(seed_of(*parts))


def some_of(items: int, count: int) -> torch.Tensor:
    """Up to `count` of the indices 0 to items-1, [n] int64 ascending: by chance, since many data sets are
    sorted by class, but always the same."""
    return torch.randperm(items, generator=generator(0, Stream.SOME))[:count].sort().values


def share_of(key: str) -> float:
    """A number in [0, 1) that is a function of a name alone: on every machine, whatever other names there
    are."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64
