"""What a quantizer is: encoder outputs become codes, and codes the vectors that the decoder sees.

`forward` changes no state. What moves by itself (a codebook by moving averages, restarts of dead codes) moves in
`update`, which the training loop calls once an optimizer step with what `observe` saw of the vectors of the whole step,
summed over the processes: gradient accumulation and several processes change nothing.

Legend: B images, N vectors (B*h*w), K codes, D size of a code vector, h x w the code map.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from vqprior.configs.schema import Stage1


class Quantized(NamedTuple):
    """What a quantizer makes of encoder outputs."""

    z_q: Tensor  # [B, D, h, w] the vectors of the codes; the gradient goes straight through to z_e
    z_e: Tensor  # [B, D, h, w] the encoder outputs as they were compared
    codes: Tensor  # [B, h, w] int64 in [0, K)
    terms: dict[str, Tensor]  # [] each, not yet weighted: those of its losses that there are


class Quantizer(nn.Module, ABC):
    """Encoder outputs [B, D, h, w] -> codes [B, h, w] in [0, K), and back to vectors [B, D, h, w]."""

    K: int
    D: int
    is_started = True  # whether there is nothing for `start` to do

    @classmethod
    @abstractmethod
    def of(cls, config: Stage1) -> Self:
        """As a configuration describes it."""

    @staticmethod
    def size(config: Stage1) -> int:
        """D of a configuration."""
        return config.D

    def forward(self, z_e: Tensor) -> Quantized:
        """Quantize encoder outputs [B, D, h, w]. Distances and losses are in fp32 at least, under autocast too."""
        with torch.autocast(z_e.device.type, enabled=False):
            return self.quantize(z_e.to(torch.promote_types(z_e.dtype, torch.float32)))

    @abstractmethod
    def quantize(self, z_e: Tensor) -> Quantized:
        """`forward`, of numbers in fp32 at least and outside of autocast."""

    @abstractmethod
    def embed(self, codes: Tensor) -> Tensor:
        """The vectors [B, D, h, w] of codes [B, h, w]."""

    def undecayed(self) -> Collection[str]:
        """Names of parameters of two and more axes that weight decay must leave alone."""
        return ()

    def start(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Begin from encoder outputs [N, D]; all processes pass the same vectors."""

    def observe(self, z_e: Tensor, codes: Tensor, drawn: Tensor, rank: int = 0, processes: int = 1) -> Tensor:
        """What this process has to say of a step, one axis, to be summed over all and given to `update`.

        Args:
            z_e: encoder outputs [N, D] of this process in this step; the processes' vectors in the order of their
                ranks are the step's vectors, and each process holds equally many.
            codes: [N] the codes they chose.
            drawn: [K] int64, for each code one of the step's vectors by chance, the same on all processes.
            rank, processes: which process of how many this is.
        """
        return z_e.new_zeros(0)

    def update(self, seen: Tensor, unsound: Tensor | None = None) -> Tensor:
        """Move what moves by itself, once an optimizer step; returns the number of restarted codes, [] int64.

        Nothing here may wait for the device.

        Args:
            seen: the sum over all processes of what `observe` gives.
            unsound: [] on the device, 1 where the step was skipped and nothing may move.
        """
        return torch.zeros((), dtype=torch.int64, device=seen.device)


def carried(z_e: Tensor, e: Tensor) -> Tensor:
    """The value of e with the gradient of z_e: straight through (arXiv 1308.3432)."""
    return z_e + (e - z_e).detach()
