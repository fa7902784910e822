"""Each quantizer against vector-quantize-pytorch, where that defines the same thing.

What it defines otherwise: the entropies of its LFQ are of the vectors of one process, its residual scalars
overlap at their ends, and so they are not held against ours.
"""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vqprior.configs.schema import Stage1
from vqprior.stage1_vqvae.quantizers import build
from vqprior.stage1_vqvae.quantizers.carry import CARRIES
from vqprior.stage1_vqvae.quantizers.ema import EMACodebook
from vqprior.stage1_vqvae.quantizers.fsq import FSQ
from vqprior.stage1_vqvae.quantizers.lfq import LFQ
from vqprior.stage1_vqvae.quantizers.residual import Residual
from vqprior.stage1_vqvae.quantizers.simvq import SimVQ

others = pytest.importorskip("vector_quantize_pytorch", reason="pip install vector-quantize-pytorch")

GRADIENTS = pytest.mark.parametrize("gradient", CARRIES)
K, D, BETA = 40, 6, 0.25


def outputs(size: int = D) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, size, 4, 5, requires_grad=True)


def gradients(value: Tensor, *of: Tensor) -> list[Tensor]:
    """Of a sum with fixed weights."""
    weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    return [*torch.autograd.grad((value * weights).sum(), of, retain_graph=True)]


def in_a_row(z: Tensor) -> Tensor:
    return rearrange(z, "b d h w -> b (h w) d")


@GRADIENTS
def test_a_codebook(gradient):
    """Codes, vectors, commitment, and what the encoder hears of the decoder and of it."""
    ours = build(Stage1(K=K, D=D, gradient=gradient))
    rotates = gradient == "rotation"
    theirs = others.VectorQuantize(D, K, accept_image_fmap=True, rotation_trick=rotates, freeze_codebook=True)
    theirs.codebook = ours.vectors()
    z = outputs()
    out, (z_q, codes, commitment) = ours(z), theirs(z)
    assert torch.equal(out.codes, codes) and torch.allclose(out.z_q, z_q, atol=1e-5)
    assert torch.allclose(out.terms["commitment"], commitment.sum())
    assert torch.allclose(*gradients(out.z_q, z), *gradients(z_q, z), atol=1e-5)
    assert torch.allclose(*gradients(out.terms["commitment"], z), *gradients(commitment.sum(), z), atol=1e-6)


def test_the_moving_averages():
    """Over ten steps, from the same counts; their smoothing of counts is left out."""
    ours = EMACodebook(K, D, decay=0.9, restart=0)
    theirs = others.VectorQuantize(D, K, decay=0.9, eps=0, threshold_ema_dead_code=0)
    theirs.codebook = ours.vectors()
    theirs._codebook.embed_avg.copy_(ours.vectors()[None])
    ours.usage.fill_(1)
    ours.sums.copy_(ours.embedding)
    for step in range(10):
        z = torch.randn(3, D, 4, 5, generator=torch.Generator().manual_seed(step))
        out = ours(z)
        _, codes, _ = theirs(in_a_row(z))
        assert torch.equal(out.codes.flatten(), codes.flatten())
        flat = rearrange(z, "b d h w -> (b h w) d")
        ours.update(ours.observe(flat, codes.flatten(), torch.zeros(K, dtype=torch.int64)))
        assert torch.allclose(ours.usage, theirs._codebook.cluster_size[0], atol=1e-5)
        assert torch.allclose(ours.vectors(), theirs.codebook, atol=1e-4)


@GRADIENTS
def test_simvq(gradient):
    ours = SimVQ(K, D, CARRIES[gradient])
    theirs = others.SimVQ(D, K, channel_first=True, rotation_trick=gradient == "rotation")
    theirs.frozen_codebook.copy_(ours.coefficients)
    theirs.code_transform.weight.data.copy_(ours.basis.detach().T)
    z = outputs()
    out, (z_q, codes, loss) = ours(z), theirs(z)
    assert torch.equal(out.codes, codes) and torch.allclose(out.z_q, z_q, atol=1e-5)
    assert torch.allclose(ours.embed(out.codes), theirs.indices_to_codes(codes), atol=1e-6)
    mine = out.terms["codebook"] + BETA * out.terms["commitment"]
    assert torch.allclose(mine, loss)
    assert torch.allclose(*gradients(out.z_q, z), *gradients(z_q, z), atol=1e-5)
    (of_z, of_basis), (z_there, weight) = (
        gradients(mine, z, ours.basis),
        gradients(loss, z, theirs.code_transform.weight),
    )
    assert torch.allclose(of_z, z_there, atol=1e-6) and torch.allclose(of_basis, weight.T, atol=1e-6)


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (4, 3), (7, 5, 5, 5, 5)])
def test_fsq(levels):
    ours, theirs, z = FSQ(levels), others.FSQ(levels), outputs(len(levels))
    out, (z_q, codes) = ours(2 * z), theirs(2 * z)
    assert torch.equal(out.codes, codes.long()) and torch.allclose(out.z_q, z_q, atol=1e-6)
    assert torch.allclose(*gradients(out.z_q, z), *gradients(z_q, z), atol=1e-5)
    assert torch.allclose(ours.embed(codes.long()), theirs.indices_to_codes(codes), atol=1e-6)


def test_lfq():
    """On vectors that are normalised already, the highest digit first as they count; their logarithm is cut
    off, which is not seen at this temperature."""
    ours, theirs = LFQ(4, temperature=2.0), others.LFQ(codebook_size=16, dim=4, commitment_loss_weight=1.0)
    out = ours(outputs(4))
    z = out.z_e.detach().flip(1).requires_grad_()
    (z_q, codes, _), losses = theirs(z, inv_temperature=0.5, return_loss_breakdown=True)
    assert torch.equal(out.codes, codes.long()) and torch.allclose(out.z_q.flip(1), z_q, atol=1e-6)
    expected = dict(zip(("vector_entropy", "codes_entropy", "commitment"), losses, strict=True))
    for name, value in expected.items():
        assert torch.allclose(out.terms[name], value, atol=1e-5), name
        (mine,), (there,) = gradients(out.terms[name], out.z_e), gradients(value, z)
        assert torch.allclose(mine.flip(1), there, atol=1e-6), name


def test_residual_codebooks():
    ours = build(Stage1(K=K, D=D, codes_per_position=3, residual=True))
    theirs = others.ResidualVQ(dim=D, num_quantizers=3, codebook_size=K).eval()
    for depth, layer in zip(ours.depths, theirs.layers, strict=True):
        layer.codebook = depth.vectors()
    z = outputs().detach()
    out, (z_q, codes, _) = ours(z), theirs(in_a_row(z))
    assert torch.equal(out.codes.view(codes.shape), codes)
    assert torch.allclose(in_a_row(out.z_q), z_q, atol=1e-5)


def test_residual_signs():
    """Each depth has vectors of half the size."""
    ours = Residual([LFQ(4, depth=depth) for depth in range(3)])
    theirs = others.ResidualLFQ(dim=4, num_quantizers=3, codebook_size=16).eval()
    out = ours(outputs(4))
    z_q, codes, _ = theirs(in_a_row(out.z_e.detach()).flip(2))
    assert torch.equal(out.codes.view(codes.shape), codes.long())
    assert torch.allclose(in_a_row(out.z_q).flip(2), z_q, atol=1e-6)
    assert F.mse_loss(out.z_q, out.z_e) < 0.1
