"""AdamW: its learning rate, its step, and its moments as named tensors.

A CUDA device works through a queue that the host fills; whoever reads a number waits for all that is queued
before it. There the optimizer is fused, and both the learning rate and whether the step is skipped are
tensors on the device. On a CPU, where reading costs nothing, and on MPS, they are a number and a decision of
the host.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn

from .transfer import onto

Scalar = float | Tensor
"""What changes from step to step, such as the learning rate: a number, or where the host runs ahead a tensor
[] on the device."""


def runs_ahead(device: torch.device) -> bool:
    """Whether a step is queued on the device without reading anything of it."""
    return device.type == "cuda"


def learning_rate(step: int, *, peak: float, warmup: int, steps: int) -> float:
    """A linear rise over the warm-up, then half a cosine down to zero at the last step: a function of the
    step."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


class Trained(Protocol):
    """A model that says which of its parameters weight decay leaves alone."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...

    def undecayed(self) -> Collection[str]:
        """Names of parameters, besides those of one axis, which no model has decayed."""


def in_groups(parameters: Mapping[str, Tensor], undecayed: Collection[str]) -> tuple[list[str], list[str]]:
    """Names of the parameters that weight decay pulls at, which have two and more axes, and of the others."""
    decayed = [name for name, parameter in parameters.items() if parameter.ndim > 1 and name not in undecayed]
    return decayed, [name for name in parameters if name not in decayed]


def adamw(
    model: Trained,
    *,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.99),
) -> torch.optim.AdamW:
    """AdamW for a model that is where it will be trained; `set_rate` gives it its learning rate."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    decayed, others = ([named[name] for name in names] for names in in_groups(named, model.undecayed()))
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    device = next(iter(named.values())).device
    ahead = runs_ahead(device)
    rate = torch.zeros((), device=device) if ahead else 0.0
    # `capturable` keeps what a CUDA graph may not read on the host; the rate's place in memory stays what it
    # is
    options = dict(fused=True, capturable=True) if ahead else {}
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=rate, betas=betas, **options)


def on_device(device: torch.device, *numbers: float) -> tuple[Scalar, ...]:
    """Numbers that change from step to step, as the step takes them."""
    return onto(torch.tensor(numbers), device).unbind() if runs_ahead(device) else numbers


def set_rate(optimizer: AcceleratedOptimizer, rate: Scalar) -> None:
    """Take the coming step at this rate."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].copy_(rate)
        else:
            group["lr"] = rate


def take_step(optimizer: AcceleratedOptimizer, unsound: Tensor | None) -> None:
    """Move the weights.

    Args:
        unsound: [] fp32 on the device, where the host runs ahead: 1 to leave everything as it is. fp16's loss
            scaler sees that by itself.
    """
    if unsound is not None and optimizer.scaler is None:
        optimizer.optimizer.found_inf = unsound  # what fused kernels and torch's own scaler agreed on
    optimizer.step()
    if unsound is not None and optimizer.scaler is None:
        del optimizer.optimizer.found_inf


def moments(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """An optimizer's moments, as PARAMETER.MOMENT: safetensors instead of a pickle."""
    state = optimizer.state
    return {
        f"{name}.{moment}": value
        for name, parameter in model.named_parameters()
        for moment, value in state.get(parameter, {}).items()
    }


def restore_moments(optimizer: AcceleratedOptimizer, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """The inverse of `moments`, into an optimizer over the same parameters that accelerate has prepared.

    Each moment gets the strides of its parameter: fused and foreach kernels take all tensors by one order in
    memory (on the CPU without looking, and then compute something else).
    """
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, _, moment = key.rpartition(".")
        parameter = parameters[name]
        if moment == "step":
            tensor = value.to(parameter.device) if runs_ahead(parameter.device) else value
        else:
            tensor = torch.empty_like(parameter, requires_grad=False).copy_(value)
        optimizer.state[parameter][moment] = tensor
