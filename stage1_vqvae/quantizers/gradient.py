"""The codebook as a parameter, which the second term of VQ-VAE, Equation 3, moves."""

import torch.nn.functional as F
from torch import Tensor, nn

from .codebook import Codebook


class GradientCodebook(Codebook):
    """Adds the term `codebook`, ||sg[z_e] - e||^2, to `commitment`."""

    def _hold(self, initial: Tensor) -> None:
        self.embedding = nn.Parameter(initial)

    def _terms(self, z_e: Tensor, z_q: Tensor) -> dict[str, Tensor]:
        return {"codebook": F.mse_loss(z_q, z_e.detach()), **super()._terms(z_e, z_q)}


KIND = GradientCodebook
