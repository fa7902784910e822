"""What stage one minimises: Equation 3 of the VQ-VAE paper.

Neural Discrete Representation Learning, van den Oord et al. 2017, https://arxiv.org/abs/1711.00937.
"""

from torch import Tensor

from .likelihood import Likelihood
from .vqvae import VQVAEOutput


def objective(out: VQVAEOutput, x: Tensor, likelihood: Likelihood, *, beta: float, unit: float) -> dict[str, Tensor]:
    """VQ-VAE, Equation 3: L = -log p(x | z_q) + ||sg[z_e] - e||^2 + beta ||z_e - sg[e]||^2, term by term.

    Args:
        out: of the VQ-VAE for the images x [B, C, H, W] in [0, 1].
        likelihood: of the decoder.
        beta: weight of the commitment term, the one that moves the encoder.
        unit: what the first term is divided by (`Likelihood.unit`): under squared error the data's variance, so that
            beta means the same on all data.

    Returns:
        The weighted terms [] by name, which add up to the loss. A quantizer without a codebook that the gradient moves
        has no term `codebook`, one without a codebook at all no term `commitment`.
    """
    terms = {"reconstruction": likelihood.loss(out.prediction, x).mean() / unit}
    weights = {"codebook": 1.0, "commitment": beta}
    return terms | {name: weights[name] * term for name, term in out.quantized.terms.items()}
