"""What every quantizer is: the discrete bottleneck between the encoder and the decoder.

`forward` changes no state. What moves by itself (a codebook, counts of how often its codes are used) moves in
`update`, which the training loop calls once an optimizer step with what `observe` saw of the vectors of the
whole step, summed over the processes: gradient accumulation and several processes change nothing.

Legend: B images, N vectors (B*h*w), K codes, D size of a code, h x w the code map.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from vqprior.configs.schema import Stage1

from .carry import Carry, straight_through


class Quantized(NamedTuple):
    """What a quantizer makes of encoder outputs."""

    z_q: Tensor  # [B, D, h, w] the vectors of the codes; their gradient goes on to z_e, see carry.py
    z_e: Tensor  # [B, D, h, w] the encoder outputs as they were compared with the codes
    codes: Tensor  # [B, h, w] int64 in [0, K), with n codes a vector [B, h, n * w]
    terms: dict[str, Tensor]  # what it adds to the loss, [] each, by name; objective.py has their weights
    # [M] means over the vectors, of which other terms than means are functions: see `pooled_terms`
    shares: Tensor | None = None


class Quantizer(nn.Module, ABC):
    """Vectors -> codes -> vectors.

    Attributes:
        FITTING: settings of stage one that weights of this kind are bound to, besides those of every kind.
        K: number of codes.
        D: size of a code.
        carry: how the gradient gets from the vector of a code to what it stands for.
        codes_per_vector: how many codes stand for one vector, side by side in the code map.
        pools: whether there are `pooled_terms`.
        moves: whether anything here moves by itself, so that the loop has to call `observe`.
        starts_on_vectors: whether `start` wants encoder outputs.
    """

    FITTING: ClassVar[tuple[str, ...]] = ()
    codes_per_vector = 1
    pools = False
    moves = False
    starts_on_vectors = False

    def __init__(self, K: int, D: int, carry: Carry = straight_through):
        super().__init__()
        self.K, self.D, self.carry = K, D, carry

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `.to(...)`, `.half()` and the like come to: code vectors keep their 32 bits, since they choose
        the codes."""

        def wide(tensor: Tensor) -> Tensor:
            made = fn(tensor)
            narrow = made.is_floating_point() and made.itemsize < 4
            return tensor.to(made.device) if narrow else made

        return super()._apply(wide, recurse)

    @property
    def first(self) -> "Quantizer":
        """What the first code of a vector is a code of: itself, unless several codes add up."""
        return self

    @classmethod
    def build(cls, settings: Stage1, depth: int = 0) -> Self:
        """The quantizer that the settings ask for, of every kind that they can name.

        Args:
            depth: how many quantizers before it have taken their part of the vectors, see residual.py.
        """
        raise NotImplementedError(f"{cls.__name__} is no kind that stage1.quantizer names")

    @staticmethod
    def code_size(settings: Stage1) -> int:
        """D under these settings, which the networks around it must know before it is built."""
        return settings.D

    def forward(self, z_e: Tensor) -> Quantized:
        """Quantize encoder outputs [B, D, h, w]; in fp32 at least, under autocast too. Changes no state."""
        with torch.autocast(z_e.device.type, enabled=False):
            found = self.quantize(z_e.to(torch.promote_types(z_e.dtype, torch.float32)))
            # not `_replace`, which torch.compile of 2.11 cannot follow
            return Quantized(self.carry(found.z_e, found.z_q), *found[1:])

    @abstractmethod
    def quantize(self, z_e: Tensor) -> Quantized:
        """`forward` without autocast, of [B, D, h, w] in fp32 or fp64; z_q are the code vectors themselves,
        whose gradient goes on to z_e in no way."""

    def pooled_terms(self, shares: Tensor) -> dict[str, Tensor]:
        """The terms that are functions of means over all vectors of a step, of these means [M]."""
        return {}

    def of_step(self, quantized: Quantized, shares: Tensor) -> Quantized:
        """What became of a part of a step's vectors, with the `pooled_terms` of the whole step.

        Their value is that of the whole, and their gradient this part's own: averaged over all parts, as
        the gradients of losses are, it is that of the whole.

        Args:
            quantized: what `forward` gave, of one pass of one process.
            shares: the mean [M] over all passes and processes of what `Quantized.shares` are.
        """
        whole = quantized.shares + (shares - quantized.shares).detach()
        return quantized._replace(terms=quantized.terms | self.pooled_terms(whole))

    @abstractmethod
    def embed(self, codes: Tensor) -> Tensor:
        """The vectors [B, D, h, w] of the codes [B, h, w], with n codes a vector [B, h, n * w]."""

    def start(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Before the first step, set what moves by encoder outputs [N, D], the same on all processes."""

    def observe(self, z_e: Tensor, codes: Tensor, drawn: Tensor, rank: int = 0, processes: int = 1) -> Tensor:
        """What this process has to say of a step, [M], to be summed over all for `update`: here nothing.

        Args:
            z_e: encoder outputs [N, D] of this process in this step; the processes' vectors in the order of
                their ranks are the step's vectors, and each process holds equally many.
            codes: [N] the codes they chose, with n codes a vector [N * n], those of a vector side by side.
            drawn: [n * K] int64, for each code one of the step's vectors by chance, the same on all
                processes.
            rank, processes: which process of how many this is.
        """
        return z_e.new_zeros(0)

    def update(self, seen: Tensor, unsound: Tensor | None = None) -> Tensor:
        """Move what moves by itself, once an optimizer step; the number of restarted codes, [] int64.

        Nothing here may wait for the device.

        Args:
            seen: the sum over all processes of what `observe` gives.
            unsound: [] on the device, 1 where the step was skipped and nothing may move.
        """
        return seen.new_zeros((), dtype=torch.int64)
