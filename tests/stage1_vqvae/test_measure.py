"""Figures of stage one: on every device, and against their definitions."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.pretend_device import pretend
from vqprior.configs import Config
from vqprior.configs.schema import Data, Stage1
from vqprior.stage1_vqvae.measure import Reconstruction, decoder_bits_per_dim, measure
from vqprior.stage1_vqvae.train import data_variance
from vqprior.stage1_vqvae.vqvae import VQVAE

HOW = dict(precision="no", channels_last=True)


class Pictures:
    """A split of made-up pictures."""

    def __init__(self, count: int):
        self.pixels = torch.randint(
            256, (count, 3, 8, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
        )

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, indices: torch.Tensor) -> torch.Tensor:
        return self.pixels[indices]


class Codes:
    """The code maps of a split."""

    def __init__(self, maps: torch.Tensor):
        self.codes = lambda indices: (maps[indices],)


def model(likelihood: str = "logistic") -> VQVAE:
    torch.manual_seed(0)
    stage1 = Stage1(K=7, D=3, width=8, blocks=1, block_width=4, factor=4, likelihood=likelihood)
    vqvae = VQVAE(replace(Config(), data=Data(size=(8, 12)), stage1=stage1)).eval().requires_grad_(False)
    torch.nn.init.normal_(vqvae.quantizers[0].embedding)
    for parameter in vqvae.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return vqvae


def figures(found: Reconstruction) -> dict[str, float]:
    counts = {f"code {code}": count for code, count in enumerate(found.levels[0].counts.flatten().tolist())}
    return found.figures() | {"loss": found.loss} | counts


@pytest.mark.parametrize("likelihood", ["mse", "logistic"])
def test_the_figures_are_their_definitions(likelihood):
    vqvae, split = model(likelihood), Pictures(11)
    found = measure(vqvae, split, batch=4, **HOW)
    x = split.pixels.float() / 255
    (quantized,) = vqvae.encode(x)
    prediction = vqvae.predict([quantized.z_q])
    mse = (x - vqvae.likelihood.image(prediction).clamp(0, 1)).square().double().mean().item()
    assert found.mse == pytest.approx(mse, rel=1e-5)
    assert found.relative_mse == pytest.approx(mse / x.double().var(correction=0).item(), rel=1e-5)
    assert found.loss == pytest.approx(vqvae.likelihood.loss(prediction, x).mean().item(), rel=1e-5)
    (carried,) = found.levels
    assert torch.equal(carried.counts[0], torch.bincount(quantized.codes.flatten(), minlength=7))
    p = carried.counts[carried.counts > 0].double() / carried.counts.sum()
    assert carried.perplexity == pytest.approx(math.exp(-(p * p.log()).sum().item()))


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_device_measures_what_the_cpu_measures(kind):
    """With as many waits for each chunk, of which none is for a figure of its own."""
    split = Pictures(11)
    vqvae = model()
    codes = vqvae.encode(split.pixels.float() / 255)[0].codes
    expected = figures(measure(vqvae, split, batch=4, **HOW))
    bits = decoder_bits_per_dim(vqvae, split, Codes(codes), batch=4, **HOW)
    with pretend(kind) as gpu:
        there = model().to(gpu.device)
        gpu.reset()
        found = figures(measure(there, split, batch=4, **HOW))
        chunks = [count for line, count in gpu.waits.items() if "measure.py" in line and count > 1]
        assert chunks == [3, 3]  # of three chunks: how often each code occurs, and all that is summed
        found_bits = decoder_bits_per_dim(there, split, Codes(codes), batch=4, **HOW)
    # Sums over processes are in fp32 where there is no fp64
    assert found == pytest.approx(expected, rel=1e-12 if kind == "cuda" else 1e-5)
    assert found_bits == pytest.approx(bits, rel=1e-12 if kind == "cuda" else 1e-6)


@pytest.mark.parametrize("count", [3, 64, 150])
def test_the_variance_of_the_data_is_exact_and_few_pictures_are_held(count):
    """4,096 pictures of 256x256 pixels at once took 13 GB."""
    train, asked = Pictures(count), []
    read = train.images
    train.images = lambda indices: (asked.append(len(indices)), read(indices))[1]
    found = data_variance(SimpleNamespace(train=train))
    assert found == pytest.approx((train.pixels.double() / 255).var().item(), rel=1e-12)
    assert max(asked) <= 64 and sum(asked) == count
