"""Attention is what its definition says, in memory that does not grow with the square of the places."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.gpu.memory import Allocated
from tests.stage2_prior.every_prior import KINDS, settings
from vqprior.runtime.codes import Level
from vqprior.stage2_prior.attention import causal_attention
from vqprior.stage2_prior.priors import build


def by_definition(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Softmax of all products, but for those of later places."""
    products = queries @ keys.transpose(2, 3) / queries.shape[-1] ** 0.5
    later = torch.ones_like(products).triu(1).bool()
    return products.masked_fill(later, -torch.inf).softmax(-1) @ values


@pytest.mark.parametrize("heads_of_keys", [1, 3])
@pytest.mark.parametrize("places", [1, 2, 35])
def test_it_is_causal_attention_and_so_is_its_gradient(heads_of_keys, places):
    torch.manual_seed(0)
    sizes = ((2, 3, places, 4), *[(2, heads_of_keys, places, 4)] * 2)
    given = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]
    weights = torch.randn(sizes[0], dtype=torch.float64)
    found, expected = causal_attention(*given), by_definition(*given)
    assert torch.allclose(found, expected, rtol=1e-12)
    gradients = [torch.autograd.grad((result * weights).sum(), given) for result in (found, expected)]
    assert all(torch.allclose(*pair, atol=1e-12) for pair in zip(*gradients, strict=True))


def test_on_a_cpu_it_is_computed_in_fp32_under_autocast_too():
    given = [torch.randn(1, 2, 9, 4, dtype=torch.bfloat16) for _ in range(3)]
    with torch.autocast("cpu", torch.bfloat16):
        found = causal_attention(*given)
    assert torch.equal(found, causal_attention(*(part.float() for part in given)).bfloat16())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("low", [False, True], ids=["fp32", "bf16"])
def test_a_training_step_on_a_large_map_holds_no_square_of_its_places(kind, low):
    """64x64 places, 16 maps: one matrix of weights would be 1 GB for each layer and head."""
    level, maps = Level(7, 64, 64), 16
    with FakeTensorMode(), Allocated() as allocated:
        prior = build(settings(kind, channels=8), [level], 0)
        codes = torch.zeros(maps, *level.size, dtype=torch.int64)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            logits = prior(codes)
        torch.nn.functional.cross_entropy(logits.float(), codes).backward()
    assert allocated.peak < maps * level.places**2 * 2  # bytes of a matrix in 16 bits
