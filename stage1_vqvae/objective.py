"""What stage one minimises: VQ-VAE, Equation 3.

Neural Discrete Representation Learning, van den Oord et al. 2017, https://arxiv.org/abs/1711.00937.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add

from torch import Tensor

from .likelihood import Likelihood
from .quantizers import Quantized


def objective(
    x: Tensor,
    prediction: Tensor,
    quantized: Sequence[Quantized],
    *,
    likelihood: Likelihood,
    variance: float,
    beta: float,
) -> dict[str, Tensor]:
    """VQ-VAE, Equation 3: the weighted terms of the loss by name, [] each, to be added up.

        -log p(x | z_q)      ||sg[z_e] - e||^2      beta ||z_e - sg[e]||^2
        reconstruction       codebook               commitment

    A term that the quantizer does not have has no key; those of several levels of codes are added. beta
    weighs the one that moves the encoder. What is done differently here: the reconstruction is divided by the
    data's variance, or what stands for it, so that beta means the same on all data.

    Args:
        x: images [B, C, H, W] in [0, 1].
        prediction: of them, [B, P, H, W].
        quantized: what became of the encoder's outputs on the way, for each level.
        likelihood: how the prediction is read.
        variance: of the sub-pixels of the data.
        beta: commitment weight.
    """
    reconstruction = likelihood.loss(prediction, x).mean() / likelihood.unit(variance)
    terms = {name: total(of_level.terms[name] for of_level in quantized) for name in quantized[0].terms}
    weighted = {name: beta * term if name == "commitment" else term for name, term in terms.items()}
    return {"reconstruction": reconstruction, **weighted}


def total(terms: Iterable[Tensor]) -> Tensor:
    """The sum [] of terms, in their order."""
    return reduce(add, terms)
