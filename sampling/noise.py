"""The randomness of sampling: Gumbel noise that is a function of (seed, image, place, code), on every device alike."""

from collections.abc import Callable

import torch
from torch import Tensor

from vqprior.runtime.randomness import hash64, uniform

Noise = Callable[[int, int], Tensor]
"""noise(i, width): the Gumbel noise [B, width, K] of row i of each map, fp32; good until the next call."""


def gumbel_noise(seed: int, images: Tensor, K: int) -> Noise:
    """The noise of the images with these numbers [B] int64, drawn a row at a time on their device.

    -log(E) of an exponential E is Gumbel-distributed, and arg max (logits + Gumbel) is a draw from softmax(logits).
    Here E = -log(1 - v) with v a hash, so that the upper tail, which decides, has the relative precision of fp32.
    """
    keys, device = hash64(seed, images)[:, None], images.device  # [B, 1]
    bits = scratch = v = w = log_w = torch.empty(0, dtype=torch.int64, device=device)  # made by the first call

    def row(i: int, width: int) -> Tensor:
        nonlocal bits, scratch, v, w, log_w
        if bits.numel() != len(images) * width * K:  # once: fresh memory would cost as much as the arithmetic
            bits = torch.empty(len(images), width * K, dtype=torch.int64, device=device)
            scratch, v = torch.empty_like(bits), torch.empty(bits.shape, device=device)
            w, log_w = torch.empty_like(v), torch.empty_like(v)
        places = torch.arange(i * width * K, (i + 1) * width * K, device=device)
        uniform(hash64(keys, places, buffers=(bits, scratch)), out=v)
        # -log(1 - v) = log(w) * v / (w - 1) with w = 1 - v as rounded: as exact as log1p, and five times as fast
        torch.log(torch.neg(v, out=w).add_(1), out=log_w)
        exponential = v.mul_(log_w.div_(w.sub_(1)).nan_to_num_(nan=1.0))  # 0 / 0 where v is lost beside 1
        return exponential.log_().neg_().view(len(images), width, K)

    return row
