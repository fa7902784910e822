"""The optimizer on a CPU, on a device whose host runs ahead (tried on the CPU, which has the same kernels),
and after a resume."""

import copy

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from vqprior.runtime import optimizer as module
from vqprior.runtime.optimizer import (
    adamw,
    moments,
    on_device,
    restore_moments,
    set_rate,
    take_step,
)


@pytest.fixture
def ahead(monkeypatch) -> None:
    """The CPU is treated like a CUDA device: fused kernels, tensors that decide."""
    monkeypatch.setattr(module, "runs_ahead", lambda device: True)
    monkeypatch.setattr(module, "onto", lambda tensor, device: tensor)


@pytest.fixture
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


class Network(nn.Sequential):
    """Of whose weights all are decayed."""

    def undecayed(self) -> tuple[str, ...]:
        return ()


def network() -> nn.Module:
    """Layers whose weights in channels_last have other strides than contiguous ones."""
    torch.manual_seed(0)
    model = Network(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(16, 5))
    return model.to(memory_format=torch.channels_last)


def backward(model: nn.Module, step: int) -> None:
    chance = torch.Generator().manual_seed(step)
    x = torch.randn(2, 3, 6, 6, generator=chance).to(memory_format=torch.channels_last)
    model(x).square().mean().backward()


def steps(model: nn.Module, optimizer, count: range, unsound: float | None = None) -> None:
    for step in count:
        set_rate(optimizer, *on_device(torch.device("cpu"), 1e-2))
        backward(model, step)
        take_step(optimizer, None if unsound is None else torch.tensor(unsound))
        optimizer.zero_grad()


def resumed(model: nn.Module, optimizer, accelerator: Accelerator):
    """The same model and optimizer, by way of contiguous tensors as a file holds them."""
    stored = {
        name: value.clone(memory_format=torch.contiguous_format)
        for name, value in moments(optimizer, model).items()
    }
    again = network()
    again.load_state_dict(copy.deepcopy(model.state_dict()))
    other = accelerator.prepare(adamw(again, weight_decay=0.01))
    restore_moments(other, again, stored)
    return again, other


@pytest.mark.parametrize("kind", ["plain", "fused"])
def test_a_resumed_optimizer_takes_the_same_steps_and_has_the_strides_of_its_parameters(
    kind, accelerator, request
):
    if kind == "fused":
        request.getfixturevalue("ahead")
    model = network()
    optimizer = accelerator.prepare(adamw(model, weight_decay=0.01))
    steps(model, optimizer, range(3))
    again, other = resumed(model, optimizer, accelerator)
    for parameter in again.parameters():
        for moment in ("exp_avg", "exp_avg_sq"):
            assert other.state[parameter][moment].stride() == parameter.stride(), moment
    steps(model, optimizer, range(3, 6))
    steps(again, other, range(3, 6))
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert all(
        torch.equal(value, moments(other, again)[name]) for name, value in moments(optimizer, model).items()
    )


def test_fused_steps_are_those_of_the_plain_optimizer_up_to_rounding(accelerator, monkeypatch, request):
    plain = network()
    steps(plain, accelerator.prepare(adamw(plain, weight_decay=0.01)), range(5))
    request.getfixturevalue("ahead")
    fused = network()
    optimizer = accelerator.prepare(adamw(fused, weight_decay=0.01))
    assert optimizer.defaults["fused"] and isinstance(optimizer.param_groups[0]["lr"], torch.Tensor)
    steps(fused, optimizer, range(5), unsound=0.0)
    for a, b in zip(plain.parameters(), fused.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_step_that_a_tensor_calls_unsound_leaves_weights_moments_and_count(ahead, accelerator):
    model = network()
    optimizer = accelerator.prepare(adamw(model, weight_decay=0.01))
    steps(model, optimizer, range(2), unsound=0.0)
    weights = copy.deepcopy(model.state_dict())
    before = {name: value.clone() for name, value in moments(optimizer, model).items()}
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    take_step(optimizer, torch.tensor(1.0))
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in moments(optimizer, model).items())
    assert not hasattr(optimizer.optimizer, "found_inf")  # or the next step would heed it


def test_parameters_of_one_axis_and_those_that_a_model_names_are_not_decayed():
    model = network()
    model.undecayed = lambda: {"2.weight"}
    decayed, others = (group["params"] for group in adamw(model, weight_decay=0.5).param_groups)
    assert [p.shape for p in decayed] == [(8, 3, 3, 3), (5, 16)]
    assert [p.shape for p in others] == [(8,), (4, 8, 3, 3), (4,), (5,)]
