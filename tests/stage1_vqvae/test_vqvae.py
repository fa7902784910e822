from dataclasses import replace

import pytest
import torch

import configs
from stage1_vqvae.vqvae import VQVAE


def model(*flags: str) -> VQVAE:
    torch.manual_seed(0)
    sizes = ["--data.size", "16", "24", "--stage1.width", "8", "--stage1.K", "16", "--stage1.D", "4"]
    return VQVAE(configs.parse(None, [*sizes, *flags])).eval()


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(factor, channels):
    vqvae = model("--stage1.factor", str(factor), "--data.channels", str(channels))
    x_hat, quantized = vqvae(torch.rand(2, channels, 16, 24))
    assert x_hat.shape == (2, channels, 16, 24)
    assert quantized.codes.shape == (2, *vqvae.map_size) == (2, 16 // factor, 24 // factor)


def test_decoding_the_codes_is_the_reconstruction():
    vqvae = model()
    x_hat, quantized = vqvae(torch.rand(2, 3, 16, 24))
    assert torch.allclose(vqvae.decode_codes(quantized.codes), x_hat, atol=1e-5)


def test_one_image_does_not_depend_on_the_others():
    vqvae, x = model().double().train(), torch.rand(5, 3, 16, 24, dtype=torch.float64)
    whole, alone = vqvae(x).x_hat[2:3], vqvae(x[2:3]).x_hat
    assert torch.allclose(whole, alone, atol=1e-12)


def test_every_parameter_gets_a_gradient():
    for codebook in ("ema", "gradient"):
        vqvae = model("--stage1.codebook", codebook)
        out = vqvae(torch.rand(2, 3, 16, 24))
        (out.x_hat.square().mean() + out.quantized.codebook_loss + out.quantized.commitment_loss).backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in vqvae.parameters())


def test_the_codebook_is_a_field():
    assert "quantizer.embedding" in dict(model("--stage1.codebook", "gradient").named_parameters())
    assert "quantizer.embedding" in dict(model("--stage1.codebook", "ema").named_buffers())
    assert replace(configs.Config().stage1, codebook="gradient").codebook == "gradient"
