"""Codes that add up: greedy, by the definition, of every kind of quantizer."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vqprior.configs.schema import FSQ, LFQ, Stage1
from vqprior.runtime.randomness import generator
from vqprior.stage1_vqvae.quantizers import QUANTIZERS, Quantizer, build
from vqprior.stage1_vqvae.quantizers.codebook import kmeans
from vqprior.stage1_vqvae.quantizers.fsq import FSQ as FiniteScalars
from vqprior.stage1_vqvae.quantizers.residual import Residual

ALL = pytest.mark.parametrize("kind", sorted(QUANTIZERS))
K, D, DEPTHS = 16, 4, 3
LEVELS = FSQ((4, 4))


def built(kind: str, **settings: object) -> Quantizer:
    torch.manual_seed(0)
    how = dict(K=K, D=D, quantizer=kind, fsq=LEVELS if kind == "fsq" else FSQ())
    how |= dict(codes_per_position=DEPTHS, residual=True, lfq=LFQ())
    return build(Stage1(**how | settings)).double()


def outputs(quantizer: Quantizer) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, quantizer.D, 4, 5, dtype=torch.float64, requires_grad=True)


@ALL
def test_each_code_is_the_nearest_to_what_those_before_it_leave(kind):
    """By brute force over the vectors of each depth; the codes of a vector lie side by side."""
    quantizer = built(kind)
    out = quantizer(outputs(quantizer))
    codes = rearrange(out.codes, "b h (w n) -> n b h w", n=DEPTHS)
    left, every = out.z_e, torch.arange(K).view(-1, 1, 1)
    for depth, of_depth in zip(quantizer.depths, codes, strict=True):
        vectors = rearrange(depth.embed(every), "k d 1 1 -> k d")
        flat = rearrange(left, "b d h w -> (b h w) d")
        assert torch.equal(torch.cdist(flat, vectors).argmin(1).view(2, 4, 5), of_depth)
        left = left - depth.embed(of_depth)
    assert torch.allclose(out.z_e - left, out.z_q)
    assert torch.allclose(quantizer.embed(out.codes), out.z_q)


@pytest.mark.parametrize("kind", ["ema", "gradient", "simvq", "lfq"])
def test_the_commitment_is_that_of_every_partial_sum(kind):
    """And it moves the encoder at every depth, as the paper's does."""
    quantizer = built(kind)
    z = outputs(quantizer)
    out = quantizer(z)
    codes = rearrange(out.codes, "b h (w n) -> n b h w", n=DEPTHS)
    vectors = [depth.embed(of_depth) for depth, of_depth in zip(quantizer.depths, codes, strict=True)]
    expected = sum(F.mse_loss(out.z_e, sum(vectors[: n + 1]).detach()) for n in range(DEPTHS))
    assert torch.allclose(out.terms["commitment"], expected)
    found, by_hand = (
        torch.autograd.grad(term, z, retain_graph=True)[0] for term in (out.terms["commitment"], expected)
    )
    assert torch.allclose(found, by_hand)


@pytest.mark.parametrize("kind", ["gradient", "simvq"])
def test_each_depth_learns_from_its_own_part(kind):
    quantizer = built(kind)
    quantizer(outputs(quantizer)).terms["codebook"].backward()
    gradients = [parameter.grad for parameter in quantizer.parameters()]
    assert len(gradients) == DEPTHS and all(gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("kind", ["ema", "simvq"])
def test_by_rotation_the_decoder_sees_the_very_sum_that_the_codes_say(kind):
    quantizer = built(kind, gradient="rotation")
    out = quantizer(outputs(quantizer))
    assert torch.equal(out.z_q, quantizer.embed(out.codes))


@pytest.mark.parametrize("kind", ["ema", "gradient"])
def test_each_depth_starts_on_the_means_of_what_those_before_it_leave(kind):
    quantizer, chance = built(kind), generator(0)
    vectors = torch.randn(400, D, dtype=torch.float64)
    quantizer.start(vectors, generator(0))
    for depth in quantizer.depths:
        assert torch.allclose(depth.vectors(), kmeans(vectors, K, chance))
        before = vectors.square().mean()
        vectors = vectors - depth.vectors()[torch.cdist(vectors, depth.vectors()).argmin(1)]
        assert vectors.square().mean() < 0.8 * before


def test_each_depth_observes_what_those_before_it_leave():
    quantizer = built("ema")
    z = outputs(quantizer).detach()
    out = quantizer(z)
    flat, codes = rearrange(z, "b d h w -> (b h w) d"), out.codes.view(-1, DEPTHS)
    drawn = torch.randint(len(flat), (DEPTHS * K,), generator=generator(0))
    seen = quantizer.observe(flat, out.codes.flatten(), drawn).chunk(DEPTHS)
    for n, (depth, of_depth) in enumerate(zip(quantizer.depths, seen, strict=True)):
        counts, sums, candidates = of_depth.split([K, K * D, K * D])
        assert torch.equal(counts, torch.bincount(codes[:, n], minlength=K).double())
        chose = codes[:, n] == codes[0, n]
        assert torch.allclose(sums.view(K, D)[codes[0, n]], flat[chose].sum(0))
        assert torch.allclose(candidates.view(K, D), flat[drawn.view(DEPTHS, K)[n]])
        flat = flat - depth.vectors()[codes[:, n]]


@pytest.mark.parametrize("levels", [(3, 5), (4, 4), (2, 8)])
def test_further_scalars_go_on_where_the_first_ones_end(levels):
    """All sums are different and evenly spaced, and what is left over is at most half of a step."""
    depths = [FiniteScalars(levels, depth).double() for depth in range(2)]
    quantizer = Residual(depths)
    both = torch.cartesian_prod(torch.arange(quantizer.K), torch.arange(quantizer.K)).view(-1, 1, 2)
    vectors = quantizer.embed(both)[:, :, 0, 0]
    for number, L in enumerate(levels):
        values = vectors[:, number].unique()
        values = values[torch.cat([torch.tensor([True]), values.diff() > 1e-9])]
        assert len(values) == L**2 and torch.allclose(values.diff(), torch.tensor(1 / (L // 2 * L)).double())
    z = 3 * torch.randn(5, 2, 8, 8, dtype=torch.float64)
    out = quantizer(z)
    step = torch.tensor([1 / (L // 2 * L) for L in levels], dtype=torch.float64).view(2, 1, 1)
    assert ((out.z_e - out.z_q).abs() <= step / 2 + 1e-3).all()


def test_pooled_terms_are_added_over_the_depths():
    quantizer = built("lfq")
    out = quantizer(outputs(quantizer))
    assert out.shares.shape == (DEPTHS * K,) and torch.allclose(out.shares.sum(), torch.tensor(3.0).double())
    expected = sum(-torch.special.xlogy(p, p).sum() for p in out.shares.chunk(DEPTHS))
    assert torch.allclose(out.terms["codes_entropy"], expected)
    again = quantizer.of_step(out, out.shares.detach())
    assert torch.allclose(again.terms["codes_entropy"], expected)


@ALL
def test_what_the_prior_and_the_networks_are_told(kind):
    """Three codes of one vector: the map is three times as wide as the vectors are."""
    quantizer = built(kind)
    assert quantizer.codes_per_vector == DEPTHS and quantizer.K == K
    assert quantizer.first is quantizer.depths[0]
    one = QUANTIZERS[kind]
    assert (quantizer.moves, quantizer.pools) == (one.moves, one.pools)
