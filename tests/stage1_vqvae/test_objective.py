"""VQ-VAE, Equation 3, as the loop minimises it."""

import pytest
import torch

from tests.conftest import FSQ, LFQ, SIMVQ
from vqprior import configs
from vqprior.stage1_vqvae.objective import objective, total
from vqprior.stage1_vqvae.vqvae import VQVAE

SIZES = ["--data.size", "8", "8", "--stage1.width", "8", "--stage1.K", "16", "--stage1.D", "4"]


def terms_of(model: VQVAE, x: torch.Tensor, *, beta: float, entropy: float = 0.0) -> dict[str, torch.Tensor]:
    prediction, quantized = model(x)
    weights = dict(beta=beta, entropy=entropy)
    return objective(x, prediction, quantized, likelihood=model.likelihood, variance=0.1, **weights)


def model(*flags: str) -> VQVAE:
    torch.manual_seed(0)
    return VQVAE(configs.parse(None, [*SIZES, *flags])).double()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(3, 3, 8, 8, dtype=torch.float64)


def test_beta_weighs_the_commitment_term_which_moves_the_encoder(x):
    """Twice beta gives the encoder the gradient of that term once more, and the codebook what it had."""
    vqvae = model("--stage1.quantizer", "gradient")
    encoder, codebook = vqvae.encoder.parameters, vqvae.quantizers[0].embedding
    (once, twice) = (terms_of(vqvae, x, beta=beta) for beta in (0.25, 0.5))
    wanted = [*encoder(), codebook]
    of_term = torch.autograd.grad(once["commitment"], wanted, retain_graph=True, allow_unused=True)
    assert of_term[-1] is None and sum(gradient.abs().sum() for gradient in of_term[:-1]) > 0
    gradient = lambda terms: torch.autograd.grad(total(terms.values()), wanted, retain_graph=True)
    before, after = gradient(once), gradient(twice)
    for a, b, term in zip(before[:-1], after[:-1], of_term[:-1], strict=True):
        assert torch.allclose(b - a, term, atol=1e-12)
    assert torch.equal(before[-1], after[-1])
    of_codebook = torch.autograd.grad(once["codebook"], wanted, retain_graph=True, allow_unused=True)
    assert {gradient is None for gradient in of_codebook[:-1]} == {True} and of_codebook[-1].abs().sum() > 0


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--stage1.quantizer", "gradient"], ["reconstruction", "codebook", "commitment"]),
        (["--stage1.quantizer", "ema"], ["reconstruction", "commitment"]),
        (SIMVQ, ["reconstruction", "codebook", "commitment"]),
        (FSQ, ["reconstruction"]),
        (LFQ, ["reconstruction", "commitment", "vector_entropy", "codes_entropy"]),
    ],
    ids=["gradient", "ema", "simvq", "fsq", "lfq"],
)
def test_the_terms_are_those_of_the_equation(flags, names, x):
    vqvae = model(*flags)
    prediction, (quantized,) = vqvae(x)
    terms = terms_of(vqvae, x, beta=0.3, entropy=0.2)
    z_e, e = quantized.z_e, vqvae.quantizers[0].embed(quantized.codes)
    distance = (z_e - e).square().mean()
    expected = {
        "reconstruction": (prediction + 0.5 - x).square().mean() / 0.1,
        "codebook": distance,
        "commitment": 0.3 * distance,
    }
    if flags == LFQ:  # each vector sure of its code, all codes in use
        expected["vector_entropy"] = 0.2 * quantized.terms["vector_entropy"]
        expected["codes_entropy"] = -0.2 * quantized.terms["codes_entropy"]
    assert [*terms] == names
    assert all(torch.allclose(terms[name], expected[name]) for name in names)
    assert torch.allclose(total(terms.values()), sum(expected[name] for name in names))


def test_a_distance_and_an_opinion_of_the_reconstruction_are_weighed(x):
    vqvae = model("--stage1.likelihood", "logistic")
    prediction, quantized = vqvae(x)
    x_hat = vqvae.likelihood.image(prediction)
    judged = dict(perceptual=0.3, distance=lambda a, b: (a - b).abs().mean((1, 2, 3)))
    judged |= dict(adversarial=0.2, opinion=lambda b: b.mean((1, 2, 3)))
    terms = objective(x, prediction, quantized, likelihood=vqvae.likelihood, variance=0.1, beta=0.3, **judged)
    assert torch.allclose(terms["perceptual"], 0.3 * (x - x_hat).abs().mean())
    assert torch.allclose(terms["adversarial"], 0.2 * x_hat.mean())
    alone = objective(x, prediction, (), likelihood=vqvae.likelihood, variance=0.1, beta=0.3)
    assert [*alone] == ["reconstruction"]
