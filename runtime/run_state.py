"""What a checkpoint of a training loop holds, named once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn

from .average import WeightAverage
from .checkpoint import Checkpoint, Tensors, load_into, of_another_version
from .guard import Guard
from .optimizer import moments, restore_moments


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
        beside: other networks by the name of their file; that of their optimizer is NAME_optimizer.
    """

    accelerator: Accelerator
    model: nn.Module
    optimizer: AcceleratedOptimizer
    average: WeightAverage | None
    guard: Guard
    beside: Mapping[str, Beside] = field(default_factory=dict)

    def restore(self, saved: Checkpoint) -> None:
        """Take over a checkpoint.

        Raises:
            UserError: as `Checkpoint.tensors`; or it is not of this version.
        """
        load_into(self.model, saved.tensors("model"), saved)
        if self.average:
            self.average.load(saved.tensors("average"))
        try:
            restore_moments(self.optimizer, self.model, saved.tensors("optimizer"))
        except KeyError as error:  # names of no parameters
            raise of_another_version(saved) from error
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
