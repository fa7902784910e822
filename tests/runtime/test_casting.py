import copy

import pytest
import torch
from torch import nn

from vqprior.runtime import casting
from vqprior.runtime.casting import CastTogether


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 2),
        nn.Flatten(),
        nn.LayerNorm(100),
        nn.Linear(100, 5),
    ]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("together", [1, 4, 100])
def test_numbers_and_gradients_are_those_of_autocast(dtype, together, monkeypatch):
    monkeypatch.setattr(casting, "TOGETHER", together)
    plain = network()
    other = copy.deepcopy(plain)
    cast, x = CastTogether(other, dtype), torch.randn(2, 3, 6, 6)
    with torch.autocast("cpu", dtype):
        expected, found = plain(x), cast(x)
    assert torch.equal(found, expected) and found.dtype == dtype
    expected.float().square().sum().backward()
    found.float().square().sum().backward()
    for a, b in zip(plain.parameters(), other.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad) and b.grad.dtype == b.dtype == torch.float32
        assert b.grad.stride() == b.stride()  # as the optimizer's kernels want it


def test_a_layer_that_nothing_used_gets_no_gradient():
    model = network()
    model.spare = nn.Linear(2, 2)
    model.forward = lambda x: model[0](x)
    with torch.autocast("cpu", torch.bfloat16):
        CastTogether(model, torch.bfloat16)(torch.randn(2, 3, 6, 6)).float().sum().backward()
    assert (
        model[0].weight.grad is not None and model[5].weight.grad is None and model.spare.weight.grad is None
    )


def test_layers_keep_their_parameters_and_what_autocast_leaves_alone_stays(monkeypatch):
    model = network()
    names = [name for group in CastTogether(model, torch.bfloat16)._groups for name, _ in group]
    assert sorted(names) == sorted(f"{layer}.{name}" for layer in (0, 2, 5) for name in ("weight", "bias"))
    parameters = [*model.parameters()]
    with torch.autocast("cpu", torch.bfloat16):
        CastTogether(model, torch.bfloat16)(torch.randn(2, 3, 6, 6))
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
