"""What a checkpoint of a training loop holds, named once."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn

from .average import WeightAverage
from .checkpoint import Checkpoint, Tensors
from .guard import Guard
from .optimizer import moments, named_moments, restore_moments


class Beside(NamedTuple):
    """Another network that learns in the same loop."""

    model: nn.Module
    optimizer: AcceleratedOptimizer


@dataclass
class RunState:
    """The model and all that moves it.

    Args:
        model: as accelerate has prepared it, but without its wrappers.
        average: of its weights, or None.
        renamed: tensors by name as earlier versions wrote them -> under the names of today.
        numbered: the parameters in the order in which earlier versions numbered their moments; as they stand
            without it.
        beside: other networks by the name of their file; that of their optimizer is NAME_optimizer.
    """

    accelerator: Accelerator
    model: nn.Module
    optimizer: AcceleratedOptimizer
    average: WeightAverage | None
    guard: Guard
    renamed: Callable[[Tensors], Tensors] = lambda tensors: tensors
    numbered: Callable[[], list[tuple[str, Tensor]]] | None = None
    beside: Mapping[str, Beside] = field(default_factory=dict)

    def restore(self, saved: Checkpoint) -> None:
        """Take over a checkpoint; raises as `Checkpoint.tensors`."""
        self.model.load_state_dict(self.renamed(saved.tensors("model")))
        if self.average:
            self.average.load(self.renamed(saved.tensors("average")))
        order = self.numbered() if self.numbered else [*self.model.named_parameters()]
        stored = moments_of(saved, order, self.renamed, self.model.undecayed())
        restore_moments(self.optimizer, self.model, stored)
        for name, (model, optimizer) in self.beside.items():
            model.load_state_dict(saved.tensors(name))
            restore_moments(optimizer, model, saved.tensors(f"{name}_optimizer"))
        self.guard.load(saved.meta["guard"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(saved.meta["scaler"])

    def tensors(self) -> dict[str, Tensors]:
        """What `Writer.save` takes."""
        tensors = {"model": self.model.state_dict(), "optimizer": moments(self.optimizer, self.model)}
        for name, (model, optimizer) in self.beside.items():
            tensors |= {name: model.state_dict(), f"{name}_optimizer": moments(optimizer, model)}
        return tensors | ({"average": self.average.tensors} if self.average else {})

    def meta(self) -> dict[str, Any]:
        """What the manifest takes; all verdicts are read by then."""
        scaler = self.accelerator.scaler
        return {"scaler": scaler.state_dict() if scaler else None, "guard": self.guard.state()}


def moments_of(
    saved: Checkpoint,
    order: list[tuple[str, Tensor]],
    renamed: Callable[[Tensors], Tensors],
    undecayed: Collection[str],
) -> Tensors:
    """The optimizer's moments of a checkpoint, as PARAMETER.MOMENT, whichever version wrote them.

    Args:
        order, renamed: `numbered` and `renamed` of a `RunState`.
        undecayed: names of parameters, as for `optimizer.adamw`.
    """
    by_moment: dict[str, Tensors] = {}
    for key, tensor in named_moments(saved.tensors("optimizer"), order, undecayed).items():
        name, _, moment = key.rpartition(".")
        by_moment.setdefault(moment, {})[name] = tensor
    today = {moment: renamed(tensors) for moment, tensors in by_moment.items()}
    return {f"{name}.{moment}": value for moment, tensors in today.items() for name, value in tensors.items()}
