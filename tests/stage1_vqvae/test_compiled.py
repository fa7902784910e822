"""What `--compile True` asks of the networks: torch can follow them in one graph, whatever the quantizer."""

import pytest
import torch

from tests.conftest import FSQ, LFQ, RESIDUAL, SIMVQ, TINY, TINY_MAPS
from tests.stage2_prior.every_prior import KINDS, opinionated, some_codes
from vqprior import configs
from vqprior.runtime.codes import Level
from vqprior.stage1_vqvae.vqvae import VQVAE


@pytest.mark.parametrize(
    "flags", [[], FSQ, LFQ, SIMVQ, RESIDUAL, ["--stage1.levels", "2"]], ids=lambda flags: " ".join(flags[:2])
)
def test_a_vqvae_is_one_graph(flags):
    torch._dynamo.reset()
    words = [*TINY_MAPS, *flags] if "--stage1.levels" in flags else [*TINY, *flags]
    model = VQVAE(configs.parse(None, words)).train()
    images = torch.rand(2, 3, 8, 8)
    expected, found = model(images), torch.compile(model, backend="eager", fullgraph=True)(images)
    assert torch.equal(found.prediction, expected.prediction)
    assert all(
        torch.equal(a.codes, b.codes) for a, b in zip(found.quantized, expected.quantized, strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_prior_is_one_graph(kind):
    torch._dynamo.reset()
    above, level = Level(5, 2, 3), Level(7, 4, 6)
    prior, labels = opinionated(kind, level, 3, [above], dtype=torch.float32), torch.arange(2)
    *coarser, codes = some_codes([above, level], 2)
    found = torch.compile(prior, backend="eager", fullgraph=True)(codes, labels, tuple(coarser))
    assert torch.allclose(found, prior(codes, labels, tuple(coarser)), atol=1e-5)
