"""The randomness of sampling: Gumbel noise that is a function of (seed, image, place, code), on every device alike."""

from collections.abc import Callable

import torch
from torch import Tensor

from runtime.randomness import hash64, uniform

Noise = Callable[[int, int], Tensor]
"""noise(i, width): the Gumbel noise [B, width, K] of row i of each map, fp32."""


def gumbel_noise(seed: int, images: Tensor, K: int) -> Noise:
    """The noise of the images with these numbers [B] int64, drawn a row at a time on their device.

    -log(-log u) of a uniform u is Gumbel-distributed, and arg max (logits + Gumbel) is a draw from softmax(logits).
    Here u = 1 - v with v a hash, so that the upper tail, which decides, has the relative precision of fp32.
    """
    keys = hash64(seed, images)[:, None]  # [B, 1]

    def row(i: int, width: int) -> Tensor:
        places = torch.arange(i * width * K, (i + 1) * width * K, device=images.device)
        v = uniform(hash64(keys, places))
        return -torch.log(-torch.log1p(-v)).view(len(images), width, K)

    return row
