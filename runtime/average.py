"""The moving average of a model's weights, which evaluation and sampling use."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of a module's parameters; buffers and what does not learn are copied as they
    are, to the sign of a zero.

    Args:
        module: where it will be trained; its tensors must stay where they are in memory.
        decay: of the average.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.module, self.decay = module, decay
        state = module.state_dict()
        self.tensors = {name: value.detach().clone() for name, value in state.items()}
        names = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
        # Lists made once: two dictionaries over all tensors would cost the host a millisecond in each step
        self._weights = _pairs(self.tensors, state, [name for name in state if name in names])
        self._buffers = _pairs(self.tensors, state, [name for name in state if name not in names])

    def weight(self, step: int) -> float:
        """How far the step with this number moves the average towards the weights.

        The decay warms up as (1 + step) / (10 + step), so that a short run's average is not its first
        weights.
        """
        return 1 - min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, weight: float | Tensor, unsound: Tensor | None = None) -> None:
        """Move the average towards the weights, after an optimizer step.

        Args:
            weight: from `weight`, a number or a tensor [] on the device.
            unsound: [] on the device, 1 where the step was skipped and the average stays too; the weight is a
                tensor then.
        """
        mine, theirs = self._weights
        if mine and unsound is None:
            torch._foreach_lerp_(mine, theirs, weight)
        elif mine:
            away = torch._foreach_sub(theirs, mine)
            torch._foreach_mul_(away, weight * (1 - unsound))
            torch._foreach_add_(mine, away)
        if self._buffers[0]:
            torch._foreach_copy_(*self._buffers)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over the tensors of a checkpoint."""
        for name, value in tensors.items():
            self.tensors[name].copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the module has the averaged weights."""
        own = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        self.module.load_state_dict(self.tensors)
        try:
            yield
        finally:
            self.module.load_state_dict(own)


def _pairs(
    mine: dict[str, Tensor],
    theirs: dict[str, Tensor],
    names: list[str],
) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors of these names in two dictionaries, in one order."""
    return [mine[name] for name in names], [theirs[name].detach() for name in names]
