"""The weights of a network in 16 bits, cast together.

Autocast casts each weight and each bias where it is used, and backward each of their gradients: two launches
for every tensor, a third of all that a small network's step launches. Here some of them share one. The
numbers are the same.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

CAST = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)  # layers whose weights autocast casts
# tensors: few, so that several processes can sum the gradients of the last layers while others are computed
TOGETHER = 16


class _Cast(torch.autograd.Function):
    """Weights -> the same in another type; backward their gradients -> the type of the weights."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.dtype = weights[0].dtype
        ctx.set_materialize_grads(False)  # a weight that nothing used has no gradient, and is not decayed
        return _copies(weights, dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        copies = iter(_copies(tuple(g for g in gradients if g is not None), ctx.dtype))
        return None, *(g if g is None else next(copies) for g in gradients)


def _copies(tensors: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    torch._foreach_copy_(copies, tensors)
    return tuple(copies)


class CastTogether(nn.Module):
    """A network whose layers find their weights in 16 bits; the parameters stay as they are.

    Args:
        network: called under autocast to `dtype`.
        dtype: bf16 or fp16.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.network, self.dtype = network, dtype
        layers = [(name, module) for name, module in network.named_modules() if isinstance(module, CAST)]
        weights = [
            (f"{layer}.{name}", p)
            for layer, module in layers
            for name, p in module.named_parameters()
            if p.requires_grad  # the others are cast where they are used: no gradient is to reach them
        ]
        self._groups = [weights[start : start + TOGETHER] for start in range(0, len(weights), TOGETHER)]

    def forward(self, *arguments: Any) -> Any:
        weights: dict[str, Tensor] = {}
        for group in self._groups:
            names, parameters = zip(*group, strict=True)
            weights |= zip(names, _Cast.apply(self.dtype, *parameters), strict=True)
        return functional_call(self.network, weights, arguments)
