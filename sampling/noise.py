"""The randomness of sampling: Gumbel noise that is a function of (seed, image, level, place, code).

The integers are the same bits on every device, and the logarithms the same up to rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vqprior.runtime.randomness import hash64, uniform
from vqprior.runtime.transfer import onto

Noise = Callable[[int, int], Tensor]
"""noise(i, width): the Gumbel noise [B, width, K] of row i of each map, fp32; good until the next call."""


class NoiseMemory:
    """What the noise of a row is computed in; fresh memory for each row would cost as much as the
    arithmetic."""

    def __init__(self) -> None:
        self.bits = torch.empty(0, dtype=torch.int64)

    def fit(self, maps: int, numbers: int, device: torch.device) -> None:
        """Have room for so many numbers of each of so many maps, on the device."""
        like = dict(device=device, dtype=torch.get_default_dtype())
        if self.bits.shape != (maps, numbers) or self.bits.device != device or self.v.dtype != like["dtype"]:
            self.bits = torch.empty(maps, numbers, dtype=torch.int64, device=device)
            self.scratch, self.places = torch.empty_like(self.bits), torch.empty_like(self.bits[0])
            self.v, self.w, self.log_w = (torch.empty(maps, numbers, **like) for _ in range(3))


@dataclass(frozen=True, eq=False)
class GumbelNoise:
    """The noise of B maps, drawn a row at a time on their device: see `gumbel_noise`.

    Args:
        hashed: [B, 1] int64, what a map's noise is a function of besides place and code.
        memory: that it is computed in.
    """

    hashed: Tensor
    K: int
    memory: NoiseMemory

    def __call__(self, i: int, width: int) -> Tensor:
        memory, K, maps = self.memory, self.K, len(self.hashed)
        memory.fit(maps, width * K, self.hashed.device)
        bits, v, w = memory.bits, memory.v, memory.w
        torch.arange(i * width * K, (i + 1) * width * K, out=memory.places)
        uniform(hash64(memory.places, after=self.hashed, buffers=(bits, memory.scratch)), out=v)
        # -log(1 - v) = log(w) * v / (w - 1) with w = 1 - v as rounded: as exact as log1p, and five times as
        # fast
        torch.log(torch.neg(v, out=w).add_(1), out=memory.log_w)
        # 0 / 0 where v is lost beside 1
        exponential = v.mul_(memory.log_w.div_(w.sub_(1)).nan_to_num_(nan=1.0))
        return exponential.log_().neg_().view(maps, width, K)


def gumbel_noise(
    seed: int,
    images: Tensor,
    K: int,
    memory: NoiseMemory | None = None,
    *,
    level: int = 0,
) -> GumbelNoise:
    """The noise of a level of the images with these numbers [B] int64, drawn a row at a time on their device.

    -log(E) of an exponential E is Gumbel-distributed, and arg max (logits + Gumbel) is a draw from
    softmax(logits). Here E = -log(1 - v) with v a hash, so that the upper tail, which decides, has the
    relative precision of fp32.
    """
    of_image = hash64(seed, images)
    if level:
        of_image = hash64(level, after=of_image)
    return GumbelNoise(hash64(of_image[:, None]), K, memory or NoiseMemory())


def noise_on(device: torch.device, noise: Noise) -> Noise:
    """Noise that is made elsewhere, on the device."""
    return lambda i, width: onto(noise(i, width), device)
