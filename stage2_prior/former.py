"""Tensors of priors that earlier versions trained, under the names of today.

Until November 2026 each gated layer had a table of class biases of its own, `layers.N.label_bias.weight` [labels, 4C];
now one table [labels, layers * 4C] holds them side by side. The moments of the optimizer were numbered, not named.
"""

import torch
from torch import Tensor, nn

from vqprior.runtime.checkpoint import Checkpoint, Tensors
from vqprior.runtime.optimizer import named_moments

TABLE = "label_bias.weight"


def tensors_of(found: Checkpoint, file: str) -> Tensors:
    """The tensors of one file of a prior's checkpoint: `model` or `average`; raises as `Checkpoint.tensors`."""
    return _joined(found.tensors(file))


def moments_of(found: Checkpoint, prior: nn.Module) -> Tensors:
    """The optimizer's moments of a checkpoint of this prior, as PARAMETER.MOMENT; raises as `Checkpoint.tensors`."""
    stored = named_moments(found.tensors("optimizer"), _former_parameters(prior), prior.undecayed())
    by_moment: dict[str, Tensors] = {}
    for key, tensor in stored.items():
        name, _, moment = key.rpartition(".")
        by_moment.setdefault(moment, {})[name] = tensor
    joined = {moment: _joined(tensors) for moment, tensors in by_moment.items()}
    return {f"{name}.{moment}": tensor for moment, tensors in joined.items() for name, tensor in tensors.items()}


def _joined(tensors: Tensors) -> Tensors:
    """One label table in place of one a layer, whose step counts, being one, are one."""
    tables = [name for name in tensors if name.startswith("layers.") and name.endswith(f".{TABLE}")]
    if not tables:
        return tensors
    in_order = [tensors[name] for name in sorted(tables, key=lambda name: int(name.split(".")[1]))]
    others = {name: tensor for name, tensor in tensors.items() if name not in tables}
    return others | {TABLE: torch.cat(in_order, dim=1) if in_order[0].ndim else in_order[0]}


def _former_parameters(prior: nn.Module) -> list[tuple[str, Tensor]]:
    """The parameters in the order in which they stood when each layer had a table."""
    parameters = dict(prior.named_parameters())
    table = parameters.pop(TABLE, None)
    listed = []
    for name, parameter in parameters.items():
        listed.append((name, parameter))
        if table is not None and name.startswith("layers.") and name.endswith(".project.bias"):
            listed.append((f"{name.removesuffix('project.bias')}{TABLE}", table))
    return listed
