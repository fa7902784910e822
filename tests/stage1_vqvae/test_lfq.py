"""Lookup-free quantization, against the paper (arXiv 2310.05737) and brute force over all codes."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vqprior.stage1_vqvae.quantizers.lfq import LFQ, entropy, entropy_of_bits, mean_of_codes


def outputs(bits: int, images: int = 3) -> Tensor:
    """Encoder outputs [B, D, 4, 5] in fp64."""
    torch.manual_seed(bits)
    return torch.randn(images, bits, 4, 5, dtype=torch.float64, requires_grad=True)


def probabilities(z_e: Tensor, quantizer: LFQ) -> Tensor:
    """p(c|z) of all codes [N, K], by the definition: the softmax of -||z - c||^2 / temperature."""
    codes = rearrange(quantizer.embed(torch.arange(quantizer.K).view(-1, 1, 1)), "k d 1 1 -> k d")
    flat = rearrange(z_e, "b d h w -> (b h w) d")
    return (-torch.cdist(flat, codes).square() / quantizer.temperature).softmax(1)


def test_a_code_by_hand():
    """The first number of a vector is the least digit; the vectors of an image are normalised before."""
    z = torch.tensor([3.0, -1.0, 2.0, -4.0]).view(1, 4, 1, 1)
    out = LFQ(4)(z)
    assert out.codes.item() == 1 + 4 and out.z_q.flatten().tolist() == [1, -1, 1, -1]
    assert torch.allclose(out.z_e.flatten(), z.flatten() / z.std(correction=0), atol=1e-5)


def test_every_code_is_reachable_and_comes_back():
    quantizer = LFQ(5)
    vectors = quantizer.embed(torch.arange(32).view(-1, 1, 1))
    # Beside another vector that lets the mean of the image be 0
    found = quantizer(torch.cat([vectors, -vectors], dim=3))
    assert torch.equal(found.codes[:, 0, 0], torch.arange(32))
    assert torch.equal(found.codes[:, 0, 1], 31 - torch.arange(32))


@pytest.mark.parametrize("bits", [1, 2, 5, 10])
@pytest.mark.parametrize("temperature", [0.3, 2.0])
@pytest.mark.parametrize("depth", [0, 1])
def test_the_entropies_and_their_gradients_are_those_of_all_codes(bits, temperature, depth):
    quantizer = LFQ(bits, temperature=temperature, depth=depth).double()
    z = outputs(bits)
    out = quantizer(z)
    p = probabilities(out.z_e, quantizer)
    expected = {
        "commitment": F.mse_loss(out.z_e, out.z_q),
        "vector_entropy": -torch.special.xlogy(p, p).sum(1).mean(),
        "codes_entropy": -torch.special.xlogy(p.mean(0), p.mean(0)).sum(),
    }
    assert torch.allclose(out.shares, p.mean(0), atol=1e-12)
    for name, value in expected.items():
        assert torch.allclose(out.terms[name], value, atol=1e-9), name
        found, of_definition = (
            torch.autograd.grad(term, z, retain_graph=True)[0] for term in (out.terms[name], value)
        )
        if name != "commitment":  # which takes the codes as they are
            assert torch.allclose(found, of_definition, atol=1e-9), name


def test_no_number_is_too_large_for_the_entropies():
    """At the paper's temperature all but numbers next to 0 are sure; nothing overflows, in fp32."""
    logits = torch.tensor([0.0, 1.0, -30.0, 400.0, -1e6, 1e30], requires_grad=True)
    found = entropy_of_bits(logits)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert found[:2].tolist() == pytest.approx([0.693147, 0.582203]) and found[2:].max() < 1e-9
    assert gradient.isfinite().all()
    shares = mean_of_codes(torch.full((5, 8), 1e4, requires_grad=True))
    assert shares.tolist() == [0] * 255 + [1]
    assert torch.autograd.grad(entropy(shares), shares)[0].isfinite().all()


@pytest.mark.parametrize("parts", [2, 4])
def test_the_terms_of_a_step_and_their_gradient_do_not_depend_on_its_parts(parts):
    """The mean over parts of a step, each with the shares of all, is the step: value and gradient."""
    quantizer, z = LFQ(4, temperature=1.0).double(), outputs(4, images=8)
    whole = quantizer(z).terms
    split = [quantizer(part) for part in z.chunk(parts)]
    shares = sum(part.shares for part in split).detach() / parts
    of_parts = [quantizer.of_step(part, shares).terms for part in split]
    alone = sum(part.terms["codes_entropy"] for part in split) / parts
    for name, value in whole.items():
        mean = sum(terms[name] for terms in of_parts) / parts
        assert torch.allclose(mean, value, atol=1e-12), name
        gradients = [torch.autograd.grad(term, z, retain_graph=True)[0] for term in (mean, value)]
        assert torch.allclose(*gradients, atol=1e-12), name
    assert alone < whole["codes_entropy"] - 1e-3  # which would be another term


def test_one_image_does_not_depend_on_the_others():
    quantizer, z = LFQ(4).double(), outputs(4)
    assert torch.equal(quantizer(z).z_e[1:2], quantizer(z[1:2]).z_e)


def test_memory_grows_with_the_root_of_the_codes():
    """16 bits of 512 vectors: 32 million probabilities, of which no tensor is."""
    largest = 0

    class Watched(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            found = function(*args, **(kwargs or {}))
            largest = max(largest, found.numel() if isinstance(found, Tensor) else 0)
            return found

    with Watched():
        LFQ(16)(torch.randn(2, 16, 16, 16))
    assert largest <= 512 * 256


def test_a_checkpoint_needs_nothing_of_it():
    assert not LFQ(8).state_dict() and not [*LFQ(8).parameters()]
