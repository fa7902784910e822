"""Vector quantization: the discrete bottleneck of the VQ-VAE.

Neural Discrete Representation Learning, van den Oord et al. 2017, https://arxiv.org/abs/1711.00937.

What is done differently here, and why:
- `forward` changes no state. Everything that moves by itself (the EMA codebook, the usage counts, the restart of
  dead codes) moves in `update`, which the training loop calls once an optimizer step with the vectors of the whole
  step, so that gradient accumulation and several processes change nothing.
- Codes that hardly anything maps to are restarted on encoder outputs; the paper lets them die.

Legend: B images, N vectors (B*h*w), K codes, D size of a code, h x w the code map.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes and returns the sum on each of them."""

CHUNK = 65536  # vectors compared with the codebook at once: bounds the [N, K] distances to 128 MB at K = 512


class Quantized(NamedTuple):
    """What a codebook makes of encoder outputs."""

    z_q: Tensor  # [B, D, h, w] nearest code vectors; the gradient goes straight through to z_e
    z_e: Tensor  # [B, D, h, w] the encoder outputs as they were compared (normalised if the codebook is)
    codes: Tensor  # [B, h, w] int64 in [0, K)
    codebook_loss: Tensor  # [] ||sg[z_e] - e||^2, the second term of Equation 3; zero where EMA moves the codebook
    commitment_loss: Tensor  # [] ||z_e - sg[e]||^2, the third term of Equation 3, not yet times beta


def one_process(tensor: Tensor) -> Tensor:
    """The `Reduce` of a run on a single process."""
    return tensor


def nearest_codes(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Equation 1: for each vector [N, D] the index [N] of the nearest of the code vectors [K, D].

    ||z||^2 is the same for every code, so arg min ||z - e||^2 = arg min ||e||^2 - 2 z.e: one product, no root.
    """
    squares = codebook.square().sum(1)
    parts = [torch.addmm(squares, part, codebook.T, alpha=-2).argmin(1) for part in vectors.split(CHUNK)]
    return torch.cat(parts)


def counts_and_sums(vectors: Tensor, codes: Tensor, K: int) -> tuple[Tensor, Tensor]:
    """How many of the vectors [N, D] chose each code, [K], and the sum of those that did, [K, D]."""
    counts, sums = vectors.new_zeros(K), vectors.new_zeros(K, vectors.shape[1])
    return counts.index_add_(0, codes, torch.ones_like(vectors[:, 0])), sums.index_add_(0, codes, vectors)


def kmeans(vectors: Tensor, K: int, generator: torch.Generator, iterations: int = 20) -> Tensor:
    """Lloyd's algorithm: K centres [K, D] of the vectors [N, D], started from K of them; N may be less than K.

    A centre that loses all its vectors stays where it is.
    """
    order = torch.randperm(len(vectors), generator=generator)
    centres = vectors[order[torch.arange(K) % len(vectors)].to(vectors.device)].clone()
    for _ in range(iterations):
        counts, sums = counts_and_sums(vectors, nearest_codes(vectors, centres), K)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
    return centres


class Codebook(nn.Module):
    """What both ways of learning a codebook share: lookup, straight-through gradient, k-means, restarts.

    Args:
        K: number of codes.
        D: size of a code.
        normalize: compare directions only: code vectors and encoder outputs are scaled to unit length.
        decay: of the moving averages (gamma of appendix A.1).
        restart: a code used less than this share of its even share (1/K) is moved onto a random encoder output.
    """

    embedding: Tensor  # [K, D]
    usage: Tensor  # [K] moving average of how often each code is chosen in a step

    def __init__(self, K: int, D: int, *, normalize: bool = False, decay: float = 0.99, restart: float = 0.05):
        super().__init__()
        self.K, self.D = K, D
        self.normalize, self.decay, self.restart = normalize, decay, restart
        self._hold(torch.randn(K, D) / D**0.5)
        self.register_buffer("usage", torch.zeros(K))

    def _hold(self, initial: Tensor) -> None:
        """Register `embedding`, as a parameter or as a buffer."""
        raise TypeError("use GradientCodebook or EMACodebook")

    def vectors(self) -> Tensor:
        """The code vectors e, [K, D], as they are compared and decoded."""
        return F.normalize(self.embedding, dim=1) if self.normalize else self.embedding

    def embed(self, codes: Tensor) -> Tensor:
        """Code vectors [B, D, h, w] of the codes [B, h, w]."""
        return rearrange(F.embedding(codes, self.vectors()), "b h w d -> b d h w")

    def forward(self, z_e: Tensor) -> Quantized:
        """Quantize encoder outputs [B, D, h, w]. Distances and losses are in fp32 at least, under autocast too."""
        with torch.autocast(z_e.device.type, enabled=False):
            z_e = z_e.to(torch.promote_types(z_e.dtype, torch.float32))
            if self.normalize:
                z_e = F.normalize(z_e, dim=1)
            flat = rearrange(z_e.detach(), "b d h w -> (b h w) d")
            codes = nearest_codes(flat, self.vectors().detach())
            codes = rearrange(codes, "(b h w) -> b h w", h=z_e.shape[2], w=z_e.shape[3])
            z_q = self.embed(codes)
            commitment_loss = F.mse_loss(z_e, z_q.detach())
            codebook_loss = self._codebook_loss(z_e.detach(), z_q)
            z_q = z_e + (z_q - z_e).detach()  # straight through: the value of z_q, the gradient of z_e
        return Quantized(z_q, z_e, codes, codebook_loss, commitment_loss)

    def _codebook_loss(self, z_e: Tensor, z_q: Tensor) -> Tensor:
        raise TypeError("use GradientCodebook or EMACodebook")

    @torch.no_grad()
    def initialize(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Set the codes to k-means centres of encoder outputs [N, D]; all processes pass the same vectors."""
        self._place(torch.ones(self.K, dtype=torch.bool, device=vectors.device), kmeans(vectors, self.K, generator))

    @torch.no_grad()
    def update(self, z_e: Tensor, codes: Tensor, generator: torch.Generator, reduce: Reduce = one_process,
               rank: int = 0, processes: int = 1) -> Tensor:  # fmt: skip
        """Move what moves by itself, once an optimizer step; returns the number of restarted codes, [] int64.

        Nothing here waits for the device.

        Args:
            z_e: encoder outputs [N, D] of this process in this step; the processes' vectors in the order of their
                ranks are the step's vectors, and each process holds equally many.
            codes: [N] the codes they chose.
            generator: a CPU generator in the same state on all processes.
            reduce: sums a tensor over all processes.
            rank, processes: which process of how many this is.
        """
        counts, sums = counts_and_sums(z_e, codes, self.K)
        both = reduce(torch.cat([counts[:, None], sums], dim=1))
        self._average(both[:, 0].contiguous(), both[:, 1:].contiguous())

        dead = self.usage < self.restart * self.usage.sum() / self.K
        # One draw for every code, dead or not. One process contributes each row and the others zeros: exact.
        chosen = torch.randint(len(z_e) * processes, (self.K,), generator=generator).to(z_e.device)
        mine = (chosen // len(z_e) == rank)[:, None]
        self._place(dead, reduce(torch.where(mine, z_e[chosen % len(z_e)], torch.zeros_like(z_e[:1]))))
        return dead.sum()

    def _average(self, counts: Tensor, sums: Tensor) -> None:
        """Move the averages towards this step's counts [K] and sums [K, D]; without history, from even use."""
        self.usage.copy_(torch.where(self.usage.sum() == 0, counts.sum() / self.K, self.usage))
        self.usage.lerp_(counts.to(self.usage.dtype), 1 - self.decay)

    def _place(self, which: Tensor, vectors: Tensor) -> None:
        """Put the codes marked in `which` [K] on the given vectors [K, D], with an average code's usage."""
        self.embedding.copy_(torch.where(which[:, None], vectors.to(self.embedding.dtype), self.embedding))
        self.usage.copy_(torch.where(which, self.usage.mean(), self.usage))


class GradientCodebook(Codebook):
    """The codebook is a parameter, moved by the second term of Equation 3."""

    def _hold(self, initial: Tensor) -> None:
        self.embedding = nn.Parameter(initial)

    def _codebook_loss(self, z_e: Tensor, z_q: Tensor) -> Tensor:
        return F.mse_loss(z_q, z_e)


class EMACodebook(Codebook):
    """The codebook is the moving average of the vectors that chose each code: appendix A.1, Equations 6 to 8."""

    def _hold(self, initial: Tensor) -> None:
        self.register_buffer("embedding", initial)
        self.register_buffer("sums", torch.zeros_like(initial))  # m of Equation 7; `usage` is N of Equation 6

    def _codebook_loss(self, z_e: Tensor, z_q: Tensor) -> Tensor:
        return z_e.new_zeros(())

    def _average(self, counts: Tensor, sums: Tensor) -> None:
        even = counts.sum() / self.K
        self.sums.copy_(torch.where(self.usage.sum() == 0, even * self.embedding, self.sums))
        super()._average(counts, sums)
        self.sums.lerp_(sums.to(self.sums.dtype), 1 - self.decay)
        # A code that nothing chose keeps its place: its sum and its count shrink together.
        moved = self.sums / self.usage.clamp(min=1e-5)[:, None]
        self.embedding.copy_(torch.where(self.usage[:, None] > 1e-5, moved, self.embedding))

    def _place(self, which: Tensor, vectors: Tensor) -> None:
        super()._place(which, vectors)
        self.sums.copy_(torch.where(which[:, None], self.usage[:, None] * self.embedding, self.sums))


CODEBOOKS: dict[str, type[Codebook]] = {"gradient": GradientCodebook, "ema": EMACodebook}
