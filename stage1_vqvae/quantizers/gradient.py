"""The codebook as a parameter, which the second term of VQ-VAE, Equation 3, moves."""

from torch import Tensor, nn

from .codebook import Codebook
from .lookup import LearntByGradient


class GradientCodebook(LearntByGradient, Codebook):
    """A codebook of K vectors, each of which the gradient moves by itself."""

    def _hold(self, initial: Tensor) -> None:
        self.embedding = nn.Parameter(initial)


KIND = GradientCodebook
