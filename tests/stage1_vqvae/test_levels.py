"""Levels of codes: each is quantized knowing the coarser ones, and the decoder sees them all."""

import pytest
import torch
from torch import Tensor

from vqprior import configs
from vqprior.stage1_vqvae.measure import measure
from vqprior.stage1_vqvae.objective import objective, total
from vqprior.stage1_vqvae.vqvae import VQVAE, codes_of, vectors_of

SIZES = "--stage1.width 16 --stage1.block_width 8 --stage1.K 16 --stage1.D 4 --stage1.factor 2".split()
KINDS = {
    "ema": ["--stage1.quantizer", "ema"],
    "gradient": ["--stage1.quantizer", "gradient"],
    "normalized": ["--stage1.codebook.normalize", "True"],
    "fsq": "--stage1.quantizer fsq --stage1.D 64 --stage1.fsq.levels 4 4".split(),
}


def model(levels: int, *flags: str, size: tuple[int, int] = (16, 24)) -> VQVAE:
    torch.manual_seed(0)
    shape = ["--data.size", *map(str, size), "--stage1.levels", str(levels)]
    return VQVAE(configs.parse(None, [*SIZES, *shape, *flags])).double()


@pytest.mark.parametrize("size", [(16, 24), (8, 40), (24, 8)])
@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("codes_per_position", [1, 2])
def test_each_level_has_half_the_size_of_the_next(levels, size, codes_per_position):
    vqvae = model(levels, "--stage1.codes_per_position", str(codes_per_position), size=size)
    out = vqvae(torch.rand(2, 3, *size, dtype=torch.float64))
    factors = [2 * 2**index for index in reversed(range(levels))]
    expected = [(size[0] // factor, codes_per_position * size[1] // factor) for factor in factors]
    assert [level.size for level in vqvae.levels] == expected
    assert [tuple(codes.shape[1:]) for codes in codes_of(out.quantized)] == expected
    assert vqvae.likelihood.image(out.prediction).shape == (2, 3, *size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levels", [2, 3])
def test_every_weight_has_a_gradient(levels, kind):
    """None is cut off, such as a projection whose level starts its gradient at what came before it."""
    vqvae, x = model(levels, *KINDS[kind]), torch.rand(4, 3, 16, 24, dtype=torch.float64)
    for encoder in (vqvae.encoder, *vqvae.coarser):
        encoder.project.bias.data.fill_(1.0)  # fsq would round all that a new encoder says to zero
    prediction, quantized = vqvae(x)
    terms = objective(x, prediction, quantized, likelihood=vqvae.likelihood, variance=0.1, beta=0.25)
    total(terms.values()).backward()
    without = [name for name, p in vqvae.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not without


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_each_level_starts_at_what_it_quantized(kind):
    """Straight through: what reaches the outputs of an encoder is what reaches the vectors of its codes."""
    vqvae, outputs = model(3, *KINDS[kind]), []
    for encoder in (*vqvae.coarser, vqvae.encoder):
        encoder.project.register_forward_hook(lambda module, given, made: outputs.append(made))
    out = vqvae(torch.rand(2, 3, 16, 24, dtype=torch.float64))
    loss = out.prediction.square().sum()
    for z, quantized in zip(outputs, out.quantized, strict=True):
        of_output, of_z_e, of_vectors = torch.autograd.grad(
            loss, (z, quantized.z_e, quantized.z_q), retain_graph=True, allow_unused=True
        )
        assert of_vectors.abs().sum() > 0 and of_output.shape == of_vectors.shape
        if kind in ("ema", "gradient"):
            assert (
                quantized.z_e is z and torch.equal(of_output, of_vectors) and torch.equal(of_z_e, of_output)
            )


def test_decoding_the_codes_is_the_reconstruction():
    vqvae = model(3)
    prediction, quantized = vqvae(torch.rand(2, 3, 16, 24, dtype=torch.float64))
    assert torch.equal(vqvae.predict(vectors_of(quantized)), prediction)
    decoded = vqvae.decode_codes(codes_of(quantized))
    assert torch.allclose(decoded, vqvae.likelihood.image(prediction), atol=1e-12)


def test_a_finer_level_is_told_the_codes_of_the_coarser_ones():
    """Other vectors there are other encoder outputs here; not the other way round."""
    vqvae, x = model(2), torch.rand(1, 3, 16, 24, dtype=torch.float64)
    before = vqvae.encode(x)
    vqvae.quantizers[0].embedding.mul_(-3)
    after = vqvae.encode(x)
    assert torch.equal(before[0].z_e, after[0].z_e) and not torch.equal(before[1].z_e, after[1].z_e)
    vqvae.quantizers[1].embedding.mul_(-3)
    assert torch.equal(after[0].z_q, vqvae.encode(x)[0].z_q)


def test_terms_of_several_levels_are_added():
    vqvae, x = model(2, *KINDS["gradient"]), torch.rand(2, 3, 16, 24, dtype=torch.float64)
    prediction, quantized = vqvae(x)
    terms = objective(x, prediction, quantized, likelihood=vqvae.likelihood, variance=0.1, beta=0.5)
    for name, weight in (("codebook", 1.0), ("commitment", 0.5)):
        of_levels = [of_level.terms[name] for of_level in quantized]
        assert torch.allclose(terms[name], weight * (of_levels[0] + of_levels[1]))


class Pictures:
    """Noise, as a split of data has it."""

    def __init__(self, count: int):
        chance = torch.Generator().manual_seed(1)
        self.pixels = torch.randint(256, (count, 3, 16, 24), dtype=torch.uint8, generator=chance)

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, indices: Tensor) -> Tensor:
        return self.pixels[indices]


def test_what_a_level_carries_is_the_error_without_it():
    """With the codes of another picture in its place; a level that nothing heeds costs nothing."""
    vqvae = model(2).float().eval()
    with torch.no_grad():
        for parameter in vqvae.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        vqvae.enlarge[0].up[-1].weight.zero_()  # the finer level and the decoder hear nothing of level 0
    found = measure(vqvae, Pictures(5), batch=5, precision="no", channels_last=False)
    in_parts = measure(vqvae, Pictures(5), batch=1, precision="no", channels_last=False)
    assert in_parts.figures() == pytest.approx(found.figures(), rel=1e-5)  # the other one is not of the batch
    coarse, fine = found.levels
    assert coarse.swapped_mse == pytest.approx(found.mse, rel=1e-6)
    assert fine.swapped_mse != pytest.approx(found.mse, rel=1e-3)
    x = Pictures(5).pixels.float() / 255
    vectors = vectors_of(vqvae.encode(x))
    swapped = vqvae.decode((vectors[0], vectors[1].roll(-2, 0))).clamp(0, 1)
    assert fine.swapped_mse == pytest.approx((swapped - x).square().mean().item(), rel=1e-5)
    names = {"perplexity_0", "perplexity_1", "usage_0", "usage_1", "swapped_mse_0", "swapped_mse_1"}
    assert names <= found.figures().keys()
