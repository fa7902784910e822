"""VQ-VAE, Equation 3: which term moves what, and what weighs it."""

import pytest
import torch

from vqprior import VQVAE, configs
from vqprior.stage1_vqvae.objective import objective

SIZE = ["--data.size", "8", "8", "--stage1.width", "8", "--stage1.blocks", "1", "--stage1.block_width", "4"]
TERMS = {
    "gradient": ["reconstruction", "codebook", "commitment"],
    "ema": ["reconstruction", "commitment"],
    "fsq": ["reconstruction"],
}


def terms(kind: str, beta: float, unit: float = 1.0) -> tuple[VQVAE, dict[str, torch.Tensor]]:
    levels = ["--stage1.fsq.levels", "4", "4"] if kind == "fsq" else []
    torch.manual_seed(0)
    model = VQVAE(configs.parse(None, [*SIZE, "--stage1.quantizer", kind, *levels, "--stage1.K", "16"]))
    x = torch.rand(3, 3, 8, 8)
    return model, objective(model(x), x, model.likelihood, beta=beta, unit=unit)


@pytest.mark.parametrize("kind", TERMS)
def test_a_quantizer_has_the_terms_that_it_has(kind):
    model, found = terms(kind, beta=0.25)
    assert list(found) == TERMS[kind]
    sum(found.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_beta_weighs_the_commitment_term_and_that_term_moves_the_encoder_alone():
    """Not the codebook: the mistake of several public VQ-VAEs."""
    gradients = {}
    for beta in (0.25, 1.0):
        model, found = terms("gradient", beta)
        found["commitment"].backward()
        assert model.quantizer.embedding.grad is None
        assert all(p.grad is None for p in model.decoder.parameters())
        gradients[beta] = [p.grad for p in model.encoder.parameters()]
    for a, b in zip(gradients[0.25], gradients[1.0], strict=True):
        assert torch.allclose(4 * a, b) and b.abs().sum() > 0


def test_the_codebook_term_moves_the_codebook_alone_whatever_beta():
    one, other = (terms("gradient", beta)[1]["codebook"] for beta in (0.25, 4.0))
    assert torch.equal(one, other)
    model, found = terms("gradient", 0.25)
    found["codebook"].backward()
    assert model.quantizer.embedding.grad.abs().sum() > 0
    assert all(p.grad is None for p in [*model.encoder.parameters(), *model.decoder.parameters()])


def test_the_unit_divides_the_reconstruction_alone():
    plain, scaled = (terms("gradient", 0.25, unit)[1] for unit in (1.0, 0.5))
    assert torch.allclose(scaled["reconstruction"], 2 * plain["reconstruction"])
    assert torch.equal(scaled["commitment"], plain["commitment"])
