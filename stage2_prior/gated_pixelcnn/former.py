"""Tensors of priors that earlier versions trained, under the names of today.

Until November 2026 each gated layer had a table of class biases of its own, `layers.N.label_bias.weight`
[labels, 4C]; now one table [labels, layers * 4C] holds them side by side. The moments of the optimizer were
numbered, not named.
"""

import torch
from torch import Tensor, nn

from vqprior.runtime.checkpoint import Tensors

TABLE = "label_bias.weight"


def joined(tensors: Tensors) -> Tensors:
    """One label table in place of one a layer; so for their moments, whose step counts are all the same
    number."""
    tables = [name for name in tensors if name.startswith("layers.") and name.endswith(f".{TABLE}")]
    if not tables:
        return tensors
    in_order = [tensors[name] for name in sorted(tables, key=lambda name: int(name.split(".")[1]))]
    others = {name: tensor for name, tensor in tensors.items() if name not in tables}
    return others | {TABLE: torch.cat(in_order, dim=1) if in_order[0].ndim else in_order[0]}


def parameters(prior: nn.Module) -> list[tuple[str, Tensor]]:
    """Names and parameters in the order in which they stood when each layer had a table."""
    others = dict(prior.named_parameters())
    table = others.pop(TABLE, None)
    listed = []
    for name, parameter in others.items():
        listed.append((name, parameter))
        if table is not None and name.startswith("layers.") and name.endswith(".project.bias"):
            listed.append((f"{name.removesuffix('project.bias')}{TABLE}", table))
    return listed
