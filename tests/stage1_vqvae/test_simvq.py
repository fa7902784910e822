"""SimVQ, against the paper (arXiv 2411.02038)."""

import torch
import torch.nn.functional as F
from einops import rearrange

from vqprior.stage1_vqvae.quantizers.simvq import SimVQ


def test_the_codes_are_fixed_vectors_seen_through_one_matrix():
    """Decoding sees them through it, too: the paper's own code forgot that."""
    torch.manual_seed(0)
    quantizer = SimVQ(20, 4).double()
    with torch.no_grad():
        quantizer.basis.normal_()
    expected = quantizer.coefficients @ quantizer.basis
    found = rearrange(quantizer.embed(torch.arange(20).view(20, 1, 1)), "k d 1 1 -> k d")
    assert torch.allclose(found, expected)
    assert [name for name, _ in quantizer.named_parameters()] == ["basis"]
    assert {*quantizer.state_dict()} == {"basis", "coefficients"}


def test_at_the_start_the_fixed_vectors_are_of_about_unit_length():
    torch.manual_seed(0)
    assert abs(SimVQ(1000, 64).coefficients.norm(dim=1).mean() - 1) < 0.02


def test_one_chosen_code_moves_all_of_them():
    torch.manual_seed(0)
    quantizer = SimVQ(20, 4)
    z = torch.randn(1, 4, 1, 1)
    before = quantizer.vectors().detach()
    quantizer(z).terms["codebook"].backward()
    with torch.no_grad():
        quantizer.basis -= 0.1 * quantizer.basis.grad
    moved = (quantizer.vectors() - before).norm(dim=1)
    assert moved.min() > 0
    out = quantizer(z)
    assert torch.allclose(out.terms["codebook"], F.mse_loss(quantizer.embed(out.codes), z))
