"""The codebook as moving averages of the vectors that chose each code: VQ-VAE, Equations 6 to 8.

Neural Discrete Representation Learning, van den Oord et al. 2017, https://arxiv.org/abs/1711.00937.
"""

import torch
from torch import Tensor

from .codebook import Codebook, State


class EMACodebook(Codebook):
    """Has no term `codebook`: no gradient moves the codes."""

    def _hold(self, initial: Tensor) -> None:
        self.register_buffer("embedding", initial)
        self.register_buffer("sums", torch.zeros_like(initial))  # m of Equation 7; `usage` is N of Equation 6

    def _moving(self) -> State:
        return super()._moving() | {"sums": self.sums}

    def _averaged(self, counts: Tensor, sums: Tensor) -> State:
        even = counts.sum() / self.K
        before = torch.where(self.usage.sum() == 0, even * self.embedding, self.sums)
        usage = super()._averaged(counts, sums)["usage"]
        sums = before.lerp(sums.to(before.dtype), 1 - self.decay)
        # A code that nothing chose keeps its place: its sum and its count shrink together.
        moved = sums / usage.clamp(min=1e-5)[:, None]
        embedding = torch.where(usage[:, None] > 1e-5, moved, self.embedding)
        return {"embedding": embedding, "usage": usage, "sums": sums}

    def _placed(self, state: State, which: Tensor, vectors: Tensor) -> State:
        placed = super()._placed(state, which, vectors)
        on_them = placed["usage"][:, None] * placed["embedding"]
        return placed | {"sums": torch.where(which[:, None], on_them, state["sums"])}


KIND = EMACodebook
