"""A codebook whose codes move one by one: what both ways of learning one share.

Neural Discrete Representation Learning, van den Oord et al. 2017, https://arxiv.org/abs/1711.00937.

What is done differently here, and why: codes that hardly anything maps to are restarted on encoder outputs;
the paper lets them die.

Legend: B images, N vectors (B*h*w), K codes, D size of a code, h x w the code map.
"""

from abc import abstractmethod
from dataclasses import asdict
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from vqprior.configs.schema import Stage1

from .carry import CARRIES, Carry, straight_through
from .lookup import Lookup, nearest_codes

ITERATIONS = 20  # of k-means

State = dict[str, Tensor]
"""What moves by itself: `embedding` [K, D], `usage` [K], and under EMA `sums` [K, D]."""


def counts_and_sums(vectors: Tensor, codes: Tensor, K: int) -> tuple[Tensor, Tensor]:
    """How many of the vectors [N, D] chose each code, [K], and the sum of those that did, [K, D]."""
    counts, sums = vectors.new_zeros(K), vectors.new_zeros(K, vectors.shape[1])
    return counts.index_add_(0, codes, torch.ones_like(vectors[:, 0])), sums.index_add_(0, codes, vectors)


def kmeans(vectors: Tensor, K: int, generator: torch.Generator) -> Tensor:
    """Lloyd's algorithm: K centres [K, D] of vectors [N, D], started from K of them; N may be less than K.

    A centre that loses all its vectors stays where it is.
    """
    order = torch.randperm(len(vectors), generator=generator)
    centres = vectors[order[torch.arange(K) % len(vectors)].to(vectors.device)].clone()
    for _ in range(ITERATIONS):
        counts, sums = counts_and_sums(vectors, nearest_codes(vectors, centres), K)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
    return centres


class Codebook(Lookup):
    """What both ways of learning a codebook share: k-means, restarts, codes that are directions.

    Args:
        K: number of codes.
        D: size of a code.
        normalize: compare directions only: code vectors and encoder outputs are scaled to unit length.
        decay: of the moving averages (gamma of appendix A.1).
        restart: a code used less than this share of its even share (1/K) is moved onto an encoder output.
        kmeans: whether `start` is to be called.
        carry: of the gradient.
    """

    FITTING = ("codebook.normalize",)
    moves = True
    embedding: Tensor  # [K, D]
    usage: Tensor  # [K] moving average of how often each code is chosen in a step

    def __init__(
        self,
        K: int,
        D: int,
        *,
        normalize: bool = False,
        decay: float = 0.99,
        restart: float = 0.05,
        kmeans: bool = True,
        carry: Carry = straight_through,
    ):
        super().__init__(K, D, carry)
        self.normalize, self.decay, self.restart, self.starts_on_vectors = normalize, decay, restart, kmeans
        self._hold(torch.randn(K, D) / D**0.5)
        self.register_buffer("usage", torch.zeros(K))

    @classmethod
    def build(cls, settings: Stage1, depth: int = 0) -> Self:
        carry = CARRIES[settings.gradient]
        return cls(settings.K, settings.D, carry=carry, **asdict(settings.codebook))

    @abstractmethod
    def _hold(self, initial: Tensor) -> None:
        """Register `embedding`, as a parameter or as a buffer."""

    def vectors(self) -> Tensor:
        return F.normalize(self.embedding, dim=1) if self.normalize else self.embedding

    def compared(self, z_e: Tensor) -> Tensor:
        return F.normalize(z_e, dim=1) if self.normalize else z_e

    @torch.no_grad()
    def start(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Put the codes on k-means centres of the encoder outputs."""
        tensors, every = self._moving(), torch.ones(self.K, dtype=torch.bool, device=vectors.device)
        placed = self._placed(tensors, every, kmeans(vectors, self.K, generator))
        torch._foreach_copy_([tensors[name] for name in placed], list(placed.values()))

    @torch.no_grad()
    def observe(self, z_e: Tensor, codes: Tensor, drawn: Tensor, rank: int = 0, processes: int = 1) -> Tensor:
        """Counts of the codes, sums of the vectors that chose each, and for each a vector to be restarted on,
        [K * (1 + 2D)]: a draw for every code, dead or not, so that all is one sum."""
        counts, sums = counts_and_sums(z_e, codes, self.K)
        # One process contributes each row and the others zeros: exact
        mine = (drawn // len(z_e) == rank)[:, None]
        candidates = torch.where(mine, z_e[drawn % len(z_e)], torch.zeros_like(z_e[:1]))
        return torch.cat([counts, sums.flatten(), candidates.flatten()])

    @torch.no_grad()
    def update(self, seen: Tensor, unsound: Tensor | None = None) -> Tensor:
        """Move the averages, and under EMA the codes with them; put dead codes on the candidates."""
        counts, sums, candidates = seen.split([self.K, self.K * self.D, self.K * self.D])
        tensors = self._moving()
        moved = self._averaged(counts, sums.view(self.K, self.D))
        usage = moved["usage"]
        dead = usage < self.restart * usage.sum() / self.K
        moved = self._placed(moved, dead, candidates.view(self.K, self.D))
        if unsound is not None:
            moved = {name: torch.where(unsound > 0, tensors[name], new) for name, new in moved.items()}
        torch._foreach_copy_([tensors[name] for name in moved], list(moved.values()))
        return dead.sum()

    def _moving(self) -> State:
        """The tensors that move by themselves, by name."""
        return {"embedding": self.embedding, "usage": self.usage}

    def _averaged(self, counts: Tensor, sums: Tensor) -> State:
        """The averages moved towards a step's counts [K] and sums [K, D]; without history, from even use."""
        before = torch.where(self.usage.sum() == 0, counts.sum() / self.K, self.usage)
        return {"embedding": self.embedding, "usage": before.lerp(counts.to(before.dtype), 1 - self.decay)}

    def _placed(self, state: State, which: Tensor, vectors: Tensor) -> State:
        """The codes marked in `which` [K] put on the given vectors [K, D], with an average code's usage."""
        embedding, usage = state["embedding"], state["usage"]
        return state | {
            "embedding": torch.where(which[:, None], vectors.to(embedding.dtype), embedding),
            "usage": torch.where(which, usage.mean(), usage),
        }
