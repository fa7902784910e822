"""AdamW: its learning rate, its step, and its moments as named tensors.

A CUDA device works through a queue that the host fills; whoever reads a number waits for all that is queued before it.
There the optimizer is fused, and both the learning rate and whether the step is skipped are tensors on the device. On a
CPU, where reading costs nothing, and on MPS, they are a number and a decision of the host.
"""

import math
import re
from collections.abc import Collection, Iterable

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn

from .transfer import onto

Rate = float | Tensor
"""A learning rate: a number, or where the host runs ahead a tensor [] on the device."""


def runs_ahead(device: torch.device) -> bool:
    """Whether a step is queued on the device without reading anything of it."""
    return device.type == "cuda"


def learning_rate(step: int, *, peak: float, warmup: int, steps: int) -> float:
    """A linear rise over the warm-up, then half a cosine down to zero at the last step: a function of the step."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def by_decay(
    parameters: Iterable[tuple[str, Tensor]],
    undecayed: Collection[str],
) -> tuple[list[tuple[str, Tensor]], list[tuple[str, Tensor]]]:
    """Named parameters that weight decay pulls at, matrices and kernels, and those that it leaves alone: biases, and
    those of which a model says so."""
    listed = list(parameters)
    pulled = [(name, p) for name, p in listed if p.ndim > 1 and name not in undecayed]
    return pulled, [(name, p) for name, p in listed if p.ndim <= 1 or name in undecayed]


def adamw(model: nn.Module, *, weight_decay: float, undecayed: Collection[str] = ()) -> torch.optim.AdamW:
    """AdamW for a model that is where it will be trained; `set_rate` gives it its learning rate.

    Args:
        undecayed: names of parameters of two and more axes that weight decay leaves alone.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    pulled, alone = by_decay(named, undecayed)
    decayed, others = ([p for _, p in listed] for listed in (pulled, alone))
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    device = named[0][1].device
    ahead = runs_ahead(device)
    rate = torch.zeros((), device=device) if ahead else 0.0
    # `capturable` keeps what a CUDA graph may not read on the host; the rate's place in memory stays what it is
    how = dict(fused=True, capturable=True) if ahead else {}
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=rate, betas=(0.9, 0.99), **how)


def on_device(device: torch.device, *numbers: float) -> tuple[Rate, ...]:
    """Numbers that change from step to step, as `Rate`s."""
    return onto(torch.tensor(numbers), device).unbind() if runs_ahead(device) else numbers


def set_rate(optimizer: AcceleratedOptimizer, rate: Rate) -> None:
    """Take the coming step at this rate."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].copy_(rate)
        else:
            group["lr"] = rate


def take_step(optimizer: AcceleratedOptimizer, unsound: Tensor | None) -> None:
    """Move the weights.

    Args:
        unsound: [] fp32 on the device, where the host runs ahead: 1 to leave everything as it is. fp16's loss scaler
            sees that by itself.
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

    Each moment gets the strides of its parameter: fused and foreach kernels take all tensors by one order in memory (on
    the CPU without looking, and then compute something else).
    """
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, _, moment = key.rpartition(".")
        parameter = parameters[name]
        if moment == "step":
            kept = value.to(parameter.device) if runs_ahead(parameter.device) else value
        else:
            kept = torch.empty_like(parameter, requires_grad=False).copy_(value)
        optimizer.state[parameter][moment] = kept


def named_moments(
    stored: dict[str, Tensor],
    parameters: Iterable[tuple[str, Tensor]],
    undecayed: Collection[str] = (),
) -> dict[str, Tensor]:
    """Moments of a checkpoint by the names of their parameters; until November 2026 these were numbered.

    Args:
        parameters: names and tensors in the order of the model that wrote them.
        undecayed: as for `adamw`: the others were counted first.
    """
    if not all(re.fullmatch(r"\d+\.\w+", key) for key in stored):
        return stored
    pulled, alone = by_decay(parameters, undecayed)
    names = [name for name, _ in (*pulled, *alone)]
    split = ((key.partition("."), value) for key, value in stored.items())
    return {f"{names[int(index)]}.{moment}": value for (index, _, moment), value in split}
