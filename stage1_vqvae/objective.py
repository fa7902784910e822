"""What stage one minimises: VQ-VAE, Equation 3.

Neural Discrete Representation Learning, van den Oord et al. 2017, https://arxiv.org/abs/1711.00937.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from .likelihood import Likelihood
from .quantizers import Quantized
from .quantizers.terms import added, total

__all__ = ["objective", "total"]

Distance = Callable[[Tensor, Tensor], Tensor]
"""Images [B, C, H, W] and reconstructions of them -> [B]."""


def objective(
    x: Tensor,
    prediction: Tensor,
    quantized: Sequence[Quantized],
    *,
    likelihood: Likelihood,
    variance: float,
    beta: float,
    entropy: float = 0.0,
    perceptual: float = 0.0,
    distance: Distance | None = None,
    adversarial: float = 0.0,
    opinion: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """VQ-VAE, Equation 3: the weighted terms of the loss by name, [] each, to be added up.

        -log p(x | z_q)      ||sg[z_e] - e||^2      beta ||z_e - sg[e]||^2
        reconstruction       codebook               commitment

    A term that the quantizer does not have has no key; those of several levels of codes are added. beta
    weighs the one that moves the encoder. What is done differently here: the reconstruction is divided by the
    data's variance, or what stands for it, so that beta means the same on all data.

    lfq has two more, the entropy penalty of MAGVIT-v2 (arXiv 2310.05737): the mean entropy of the code of a
    vector, which is to be small, minus the entropy of all codes of a step, which is to be large.

    Beside the reconstruction, what makes pictures sharper: a distance of features (`perceptual.py`), and what
    an adversary thinks of them (`adversary.py`).

    Args:
        x: images [B, C, H, W] in [0, 1].
        prediction: of them, [B, P, H, W].
        quantized: what became of the encoder's outputs on the way, for each level; empty where only the
            decoder learns.
        likelihood: how the prediction is read.
        variance: of the sub-pixels of the data.
        beta: commitment weight.
        entropy: weight of the entropies.
        perceptual: weight of `distance`, where that is given.
        adversarial: weight of the `opinion` of reconstructions, [B, C, H, W] -> [B], where that is given.
    """
    reconstruction = likelihood.loss(prediction, x).mean() / likelihood.unit(variance)
    terms = added(of_level.terms for of_level in quantized)
    weights = {"commitment": beta, "vector_entropy": entropy, "codes_entropy": -entropy}
    weighted = {name: weights[name] * term if name in weights else term for name, term in terms.items()}
    if distance or opinion:
        x_hat = likelihood.image(prediction)
    if distance:
        weighted["perceptual"] = perceptual * distance(x, x_hat).mean()
    if opinion:
        weighted["adversarial"] = adversarial * opinion(x_hat).mean()
    return {"reconstruction": reconstruction, **weighted}
