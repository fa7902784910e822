"""Finite scalar quantization, against the paper (arXiv 2309.15505)."""

from math import atanh, tanh

import pytest
import torch

from vqprior.stage1_vqvae.quantizers.fsq import FSQ


def column(*numbers: float) -> torch.Tensor:
    """One vector, [1, D, 1, 1]."""
    return torch.tensor(numbers).view(1, -1, 1, 1)


@pytest.mark.parametrize("levels", [(2,), (3,), (8, 5, 5, 5), (2, 3, 4), (1000, 65)])
def test_every_code_is_reachable_and_comes_back(levels):
    """The vector of each code, taken back through the bound, has that code; no code is missed or made up."""
    quantizer = FSQ(levels).double()
    codes = torch.arange(quantizer.K).view(-1, 1, 1)
    vectors = quantizer.embed(codes)
    bounded = vectors * quantizer.middle
    z = torch.atanh((bounded + quantizer.offset) / quantizer.reach) - quantizer.shift
    out = quantizer(z)
    assert torch.equal(out.codes, codes) and torch.allclose(out.z_q, vectors)
    assert vectors.min() == -1 and vectors.max() <= 1
    far = quantizer(torch.cat([torch.full_like(z, -1e4), torch.full_like(z, 1e4)])).codes
    assert (far.min(), far.max()) == (0, quantizer.K - 1)


def test_exact_values_by_hand():
    """L = 5: tanh(z) * 4 * 1.001 / 2, rounded, over 2. L = 4: 3 * 1.001 / 2, a half further down, over 2."""
    quantizer = FSQ((5, 4))
    shift = atanh(0.5 / 1.5015)
    z = column(0.5, -1.0)
    out = quantizer(z)
    expected = [tanh(0.5) * 2.002, tanh(-1 + shift) * 1.5015 - 0.5]  # 0.925, -1.349
    assert torch.allclose(out.z_e.flatten(), torch.tensor(expected) / 2)
    assert torch.allclose(out.z_q.flatten(), torch.tensor([1.0, -1.0]) / 2)
    assert out.codes.item() == (1 + 2) + 5 * (-1 + 2)
    far = [quantizer(column(end, end)).z_q.flatten().tolist() for end in (-9.0, 9.0)]
    assert far == [[-1, -1], [1, 0.5]]


@pytest.mark.parametrize("level", [2, 3, 8, 1000])
def test_nothing_stays_nothing(level):
    """The shift of an even number of levels makes the bound of 0 exactly 0."""
    out = FSQ((level,))(column(0.0))
    assert abs(out.z_e.item()) < 1e-6 and out.codes.item() == level // 2


def test_the_gradient_is_that_of_the_bound():
    quantizer = FSQ((5, 4)).double()
    z = torch.randn(3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(quantizer(z).z_q.sum(), z)
    (expected,) = torch.autograd.grad((quantizer.bound(z) / quantizer.middle).sum(), z)
    assert torch.equal(found, expected)


def test_a_checkpoint_needs_nothing_of_it():
    assert not FSQ((8, 8)).state_dict() and not [*FSQ((8, 8)).parameters()]
