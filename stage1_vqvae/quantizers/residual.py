"""Several codes a vector: each quantizer takes its part of what those before it have left.

Autoregressive Image Generation using Residual Quantization, Lee et al. 2022,
https://arxiv.org/abs/2203.01941, section 3.1: r_0 = z, k_d = Q(r_(d-1)), r_d = r_(d-1) - e(k_d); the vector
decoded is the sum of all e(k_d). The terms are added over the depths, so that `commitment` is that of the
paper: of every partial sum.

What is done differently here, and why:
- Each depth has a codebook of its own, as in SoundStream (arXiv 2107.03312): what is left over is smaller at
  each depth, and codes there cost no bits. The paper shares one.
- Any kind of quantizer will do; fsq.py and lfq.py say what is left over for theirs.
- Depths are never left out in training: all codes of a position are modelled by the prior.

Legend: B images, N vectors (B*h*w), n codes a vector, K codes of a depth, D size of a code, h x w vectors of
an image, whose code map is [h, n * w], the codes of a vector side by side, coarsest first.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from .quantizer import Quantized, Quantizer
from .terms import added, total


class Residual(Quantizer):
    """The sum of the vectors of n quantizers of one kind.

    Args:
        depths: the quantizers, in the order in which they take their parts.
    """

    def __init__(self, depths: Sequence[Quantizer]):
        first = depths[0]
        super().__init__(first.K, first.D, first.carry)
        self.depths = nn.ModuleList(depths)
        self.codes_per_vector = len(depths)
        self.moves, self.pools, self.starts_on_vectors = first.moves, first.pools, first.starts_on_vectors

    @property
    def first(self) -> Quantizer:
        return self.depths[0]

    def quantize(self, z_e: Tensor) -> Quantized:
        parts, left = [], z_e
        for depth in self.depths:
            parts.append(depth.quantize(left))
            left = parts[-1].z_e - parts[-1].z_q.detach()
        z_q = total(part.z_q for part in parts)
        codes = rearrange([part.codes for part in parts], "n b h w -> b h (w n)")
        shares = torch.cat([part.shares for part in parts]) if self.pools else None
        return Quantized(z_q, parts[0].z_e, codes, added(part.terms for part in parts), shares)

    def pooled_terms(self, shares: Tensor) -> dict[str, Tensor]:
        pairs = zip(self.depths, shares.chunk(len(self.depths)), strict=True)
        return added(depth.pooled_terms(of_depth) for depth, of_depth in pairs)

    def embed(self, codes: Tensor) -> Tensor:
        of_depths = rearrange(codes, "b h (w n) -> n b h w", n=len(self.depths))
        pairs = zip(self.depths, of_depths, strict=True)
        return total(depth.embed(of_depth) for depth, of_depth in pairs)

    @torch.no_grad()
    def start(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Each depth on what the ones before it leave."""
        for depth in self.depths:
            depth.start(vectors, generator)
            found = depth.quantize(vectors[:, :, None, None])
            vectors = (found.z_e - found.z_q)[:, :, 0, 0]

    @torch.no_grad()
    def observe(self, z_e: Tensor, codes: Tensor, drawn: Tensor, rank: int = 0, processes: int = 1) -> Tensor:
        n, seen, left = len(self.depths), [], z_e
        of_depths = zip(self.depths, codes.view(-1, n).T, drawn.chunk(n), strict=True)
        for depth, chosen, draws in of_depths:
            seen.append(depth.observe(left, chosen, draws, rank, processes))
            left = left - depth.embed(chosen[:, None, None])[:, :, 0, 0]
        return torch.cat(seen)

    @torch.no_grad()
    def update(self, seen: Tensor, unsound: Tensor | None = None) -> Tensor:
        of_depths = zip(self.depths, seen.chunk(len(self.depths)), strict=True)
        return total(depth.update(of_depth, unsound) for depth, of_depth in of_depths)
