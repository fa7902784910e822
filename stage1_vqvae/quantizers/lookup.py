"""The nearest of K vectors: what all quantizers with code vectors share.

Neural Discrete Representation Learning, van den Oord et al. 2017, https://arxiv.org/abs/1711.00937.

Legend: B images, N vectors (B*h*w), K codes, D size of a code, h x w the code map.
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .quantizer import Quantized, Quantizer

DISTANCES = 2**25  # of vectors to codes that are held at once: 128 MB
CACHED = 2**18  # the same for each thread of a CPU: 1 MB, which fits a core's cache
VECTORS = 2**16  # compared with the codebook at once, at most


def nearest_codes(vectors: Tensor, codebook: Tensor) -> Tensor:
    """VQ-VAE, Equation 1: for each vector [N, D] the index [N] of the nearest of the code vectors [K, D].

    ||z||^2 is the same for every code, so arg min ||z - e||^2 = arg min ||e||^2 - 2 z.e: one product.
    """
    squares = codebook.square().sum(1)
    if torch.compiler.is_exporting():  # a graph is made for any N, and cannot know how many parts that takes
        return torch.addmm(squares, vectors, codebook.T, alpha=-2).argmin(1)
    if vectors.device.type != "cpu" or torch.compiler.is_compiling():  # where every part has a price
        rows = DISTANCES // len(codebook)
    else:  # as many as a vector has numbers, at least: the codebook is read again for each part
        rows = max(vectors.shape[1], CACHED * torch.get_num_threads() // len(codebook))
    parts = [
        torch.addmm(squares, part, codebook.T, alpha=-2).argmin(1)
        for part in vectors.split(max(1, min(VECTORS, rows)))
    ]
    return torch.cat(parts)


class Lookup(Quantizer):
    """Finds for each encoder output the nearest code vector; has the term `commitment`."""

    @abstractmethod
    def vectors(self) -> Tensor:
        """The code vectors e, [K, D], as they are compared and decoded."""

    def compared(self, z_e: Tensor) -> Tensor:
        """Encoder outputs [B, D, h, w] as they are compared with the code vectors."""
        return z_e

    def embed(self, codes: Tensor) -> Tensor:
        return rearrange(F.embedding(codes, self.vectors()), "b h w d -> b d h w")

    def quantize(self, z_e: Tensor) -> Quantized:
        z_e = self.compared(z_e)
        flat = rearrange(z_e.detach(), "b d h w -> (b h w) d")
        codes = nearest_codes(flat, self.vectors().detach())
        codes = rearrange(codes, "(b h w) -> b h w", h=z_e.shape[2], w=z_e.shape[3])
        z_q = self.embed(codes)
        return Quantized(z_q, z_e, codes, self._terms(z_e, z_q))

    def _terms(self, z_e: Tensor, z_q: Tensor) -> dict[str, Tensor]:
        """VQ-VAE, Equation 3: what of it the codes take part in; `commitment` is ||z_e - sg[e]||^2."""
        return {"commitment": F.mse_loss(z_e, z_q.detach())}


class LearntByGradient(Lookup):
    """Adds the term `codebook`, ||sg[z_e] - e||^2, which moves the code vectors."""

    def _terms(self, z_e: Tensor, z_q: Tensor) -> dict[str, Tensor]:
        return {"codebook": F.mse_loss(z_q, z_e.detach()), **super()._terms(z_e, z_q)}
