import pytest
import torch

from tests.conftest import FSQ, LFQ, RESIDUAL, SIMVQ
from vqprior import configs
from vqprior.stage1_vqvae.vqvae import VQVAE, codes_of


def model(*flags: str) -> VQVAE:
    torch.manual_seed(0)
    sizes = ["--data.size", "16", "24", "--stage1.width", "8", "--stage1.K", "16", "--stage1.D", "4"]
    return VQVAE(configs.parse(None, [*sizes, *flags])).eval()


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(factor, channels):
    vqvae = model("--stage1.factor", str(factor), "--data.channels", str(channels))
    prediction, (quantized,) = vqvae(torch.rand(2, channels, 16, 24))
    assert vqvae.likelihood.image(prediction).shape == (2, channels, 16, 24)
    assert quantized.codes.shape == (2, *vqvae.levels[0].size) == (2, 16 // factor, 24 // factor)


def test_decoding_the_codes_is_the_reconstruction():
    vqvae = model()
    prediction, quantized = vqvae(torch.rand(2, 3, 16, 24))
    assert torch.allclose(
        vqvae.decode_codes(codes_of(quantized)), vqvae.likelihood.image(prediction), atol=1e-5
    )


def test_codes_of_one_position_lie_side_by_side():
    """Another code at one place of the map changes pixels around its own square only."""
    vqvae = model("--stage1.codes_per_position", "3", "--stage1.blocks", "0")
    assert vqvae.levels[0].size == (4, 3 * 6)
    x = torch.rand(1, 3, 16, 24)
    z = vqvae.encoder(x - 0.5)  # [1, 3 * D, 4, 6]
    (quantized,) = vqvae.encode(x)
    for n in range(3):
        assert torch.equal(quantized.z_e[0, :, 2, 3 * 4 + n], z[0, 4 * n : 4 * (n + 1), 2, 4])
    assert torch.equal(vqvae.encoder(x - 0.5), z)
    codes = quantized.codes
    for n in range(3):
        other = codes.clone()
        other[0, 2, 3 * 4 + n] = (other[0, 2, 3 * 4 + n] + 1) % 16
        moved = (vqvae.decode_codes((other,)) != vqvae.decode_codes((codes,))).any(1)[0].nonzero()
        assert moved.min(0).values.tolist() >= [8 - 7, 16 - 7] and moved.max(0).values.tolist() <= [
            11 + 7,
            19 + 7,
        ]
        assert {8, 11} <= {*moved[:, 0].tolist()} and {16, 19} <= {*moved[:, 1].tolist()}


def test_one_image_does_not_depend_on_the_others():
    vqvae, x = model().double().train(), torch.rand(5, 3, 16, 24, dtype=torch.float64)
    whole, alone = vqvae(x).prediction[2:3], vqvae(x[2:3]).prediction
    assert torch.allclose(whole, alone, atol=1e-12)


def test_codes_that_add_up_are_of_one_vector_of_their_position():
    """The encoder says no more than for one code, and each code of the map changes its own square only."""
    vqvae, one = model(*RESIDUAL, "--stage1.blocks", "0"), model("--stage1.blocks", "0")
    assert vqvae.levels[0].size == (4, 2 * 6) and one.levels[0].size == (4, 6)
    count = lambda network: sum(p.numel() for p in network.parameters())
    assert count(vqvae.encoder) == count(one.encoder) and count(vqvae.decoder) == count(one.decoder)
    prediction, (quantized,) = vqvae(torch.rand(1, 3, 16, 24))
    assert quantized.z_q.shape == (1, 4, 4, 6) and quantized.codes.shape == (1, 4, 12)
    image = vqvae.decode_codes((quantized.codes,))
    assert torch.allclose(image, vqvae.likelihood.image(prediction), atol=1e-5)
    for n in range(2):
        other = quantized.codes.clone()
        other[0, 2, 2 * 4 + n] = (other[0, 2, 2 * 4 + n] + 1) % 16
        moved = (vqvae.decode_codes((other,)) != image).any(1)[0].nonzero()
        assert moved.min(0).values.tolist() >= [8 - 7, 16 - 7]
        assert moved.max(0).values.tolist() <= [11 + 7, 19 + 7]


KINDS = {
    "ema": ["--stage1.quantizer", "ema"],
    "gradient": ["--stage1.quantizer", "gradient"],
    "simvq": SIMVQ,
    "fsq": FSQ,
    "lfq": LFQ,
    "residual": [*RESIDUAL, "--stage1.quantizer", "gradient"],
}


@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)
def test_every_parameter_gets_a_gradient(flags):
    vqvae = model(*flags)
    vqvae.encoder.project.bias.data.fill_(1.0)  # fsq would round all that a new encoder says to zero
    out = vqvae(torch.rand(2, 3, 16, 24))
    (out.prediction.square().mean() + sum(out.quantized[0].terms.values())).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in vqvae.parameters())


def test_the_quantizer_is_a_field():
    assert "quantizers.0.embedding" in dict(model("--stage1.quantizer", "gradient").named_parameters())
    assert "quantizers.0.embedding" in dict(model("--stage1.quantizer", "ema").named_buffers())
    assert not [name for name in model(*FSQ).state_dict() if name.startswith("quantizers.")]


def test_the_model_says_what_is_not_decayed_and_what_stays_exact():
    models = {kind: model(*flags) for kind, flags in KINDS.items()}
    named = lambda *names: {f"quantizers.0.{name}" for name in names}
    depths = ("depths.0.embedding", "depths.1.embedding")
    assert {kind: vqvae.undecayed() for kind, vqvae in models.items()} == {
        "ema": set(),
        "gradient": named("embedding"),
        "simvq": named("basis"),
        "fsq": set(),
        "lfq": set(),
        "residual": named(*depths),
    }
    exact = {kind: vqvae.exact_tensors() for kind, vqvae in models.items()}
    assert exact == {
        "ema": named("embedding", "usage", "sums"),
        "gradient": named("embedding", "usage"),
        "simvq": named("basis", "coefficients"),
        "fsq": set(),
        "lfq": set(),
        "residual": named(*depths, "depths.0.usage", "depths.1.usage"),
    }
    assert all(exact[kind] <= models[kind].state_dict().keys() for kind in models)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("flags", [*KINDS.values(), ["--stage1.levels", "2"]], ids=[*KINDS, "levels"])
def test_in_16_bits_what_chooses_codes_stays_exact(flags, dtype):
    """Encoding ended in an error of torch, and fsq in bf16 took the vectors of other codes."""
    vqvae = model(*flags)
    codes = tuple(torch.randint(level.K, (2, *level.size)) for level in vqvae.levels)
    vectors, image = vqvae.embed(codes), vqvae.decode_codes(codes)
    vqvae.to(dtype)
    assert vqvae.dtype == dtype and all(map(torch.equal, vqvae.embed(codes), vectors))
    assert torch.allclose(vqvae.decode_codes(codes), image, atol=0.01)
    prediction, quantized = vqvae(torch.rand(2, 3, 16, 24, dtype=dtype))
    assert prediction.dtype == torch.float32
    for of_level, vectors in zip(quantized, vqvae.embed(codes_of(quantized)), strict=True):
        assert of_level.z_e.dtype == torch.float32 and torch.equal(of_level.z_q, vectors)


def test_whole_numbers_and_other_shapes_are_refused():
    """uint8 went through without a word, and gave other codes."""
    vqvae = model()
    for call in (vqvae, vqvae.encode):
        for dtype in (torch.uint8, torch.int64, torch.bool):
            with pytest.raises(TypeError, match=r"in \[0, 1\], got torch.*divide 0 to 255 by 255"):
                call(torch.ones(2, 3, 16, 24, dtype=dtype))
        for shape in ((3, 16, 24), (2, 1, 16, 24), (2, 3, 24, 16), (2, 16, 24, 3), (2, 3, 32, 48)):
            with pytest.raises(ValueError, match=r"C, H, W \[3, 16, 24\], got"):
                call(torch.rand(shape))
