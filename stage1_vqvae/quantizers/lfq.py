"""Lookup-free quantization: of each number of a vector only the sign is kept. No codebook to learn.

Language Model Beats Diffusion: Tokenizer is Key to Visual Generation (MAGVIT-v2), Yu et al. 2023,
https://arxiv.org/abs/2310.05737, section 3.1.

What keeps the codes in use is the entropy penalty there, a term of the loss: each vector should be sure of
its code, and all vectors of a step together should use all codes, E[H(p(c|z))] - H(E[p(c|z)]), with p(c|z)
the softmax of -||z - c||^2 / temperature over all codes.

What is done differently here, and why:
- Both entropies are exact, for any number of bits, without the N x K probabilities: given z the bits are
  independent, so the first one is a sum over bits, and the mean of the second is one product of two matrices.
- The second one is of the whole step, over all passes and processes (`pooled_terms`): that of a part is
  less, and its gradient another.
- A further quantizer of what an earlier one leaves (`depth`, see residual.py) has vectors of half the size.
- The vectors of an image are normalised before the sign, without weights: the method counts on networks that
  end so (its authors, vector-quantize-pytorch #89), and ours do not.
- The first number of a vector is the least digit of its code, as in fsq.py.

Legend: B images, N vectors (B*h*w), D numbers of a vector and bits of a code, K = 2^D codes, h x w the code
map.
"""

from typing import Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vqprior.configs.schema import Stage1

from .quantizer import Quantized, Quantizer

EPS = 1e-5  # added to the variance of an image's vectors


class LFQ(Quantizer):
    """Signs, as vectors of plus and minus one.

    Args:
        D: bits of a code.
        temperature: of p(c|z); the smaller, the nearer to 0 is a number that the entropies still move.
        depth: how many quantizers before it have taken their part of the vectors.
    """

    pools = True

    def __init__(self, D: int, *, temperature: float = 0.01, depth: int = 0):
        super().__init__(2**D, D)
        self.temperature, self.depth = temperature, depth
        self.register_buffer("places", 2 ** torch.arange(D)[:, None, None], persistent=False)  # [D, 1, 1]
        self.register_buffer("size", torch.tensor(0.5**depth), persistent=False)  # of a vector's numbers

    @classmethod
    def build(cls, settings: Stage1, depth: int = 0) -> Self:
        return cls(cls.code_size(settings), temperature=settings.lfq.temperature, depth=depth)

    @staticmethod
    def code_size(settings: Stage1) -> int:
        return settings.K.bit_length() - 1

    def quantize(self, z_e: Tensor) -> Quantized:
        if not self.depth:
            z_e = F.group_norm(z_e, 1, eps=EPS)
        bits = z_e.detach() > 0
        codes = (bits * self.places).sum(1)
        z_q = self._signed(bits)
        flat = rearrange(z_e, "b d h w -> (b h w) d")
        logits = 4 * self.size / self.temperature * flat  # ||z + size||^2 - ||z - size||^2, of each bit
        shares = mean_of_codes(logits)
        terms = {
            "commitment": F.mse_loss(z_e, z_q),
            "vector_entropy": entropy_of_bits(logits).sum(1).mean(),
            **self.pooled_terms(shares),
        }
        return Quantized(z_q, z_e, codes, terms, shares)

    def pooled_terms(self, shares: Tensor) -> dict[str, Tensor]:
        return {"codes_entropy": entropy(shares)}

    def embed(self, codes: Tensor) -> Tensor:
        return self._signed(codes[:, None] // self.places % 2 > 0)

    def _signed(self, bits: Tensor) -> Tensor:
        return torch.where(bits, self.size, -self.size)


def entropy_of_bits(logits: Tensor) -> Tensor:
    """The entropy, in nats, of bits that are set with the probability sigmoid(logits); of the same shape."""
    size = logits.abs()
    return F.softplus(-size) + size * torch.sigmoid(-size)


def mean_of_codes(logits: Tensor) -> Tensor:
    """The mean over N of the probability of each of 2^D codes, [2^D], from the logits [N, D] of its bits.

    A code's probability is that of its lower bits times that of its upper bits, so that the mean is a product
    of matrices: of [N, 2^(D/2)] twice, where all probabilities would be [N, 2^D].
    """
    set_, unset = torch.sigmoid(logits), torch.sigmoid(-logits)
    half = logits.shape[1] // 2
    lower = _joint(set_[:, :half], unset[:, :half])
    upper = _joint(set_[:, half:], unset[:, half:])
    return (upper.T @ lower).flatten() / len(logits)


def _joint(set_: Tensor, unset: Tensor) -> Tensor:
    """The probabilities [N, 2^d] of all values of d bits, the first one the least digit, from those [N, d] of
    each being set or not."""
    joint = set_.new_ones(len(set_), 1)
    for bit in range(set_.shape[1]):
        joint = torch.cat([joint * unset[:, bit, None], joint * set_[:, bit, None]], dim=1)
    return joint


def entropy(shares: Tensor) -> Tensor:
    """The entropy [], in nats, of probabilities [K]."""
    return -(shares * shares.clamp(min=torch.finfo(shares.dtype).tiny).log()).sum()


KIND = LFQ
