"""How the gradient gets over the step from an encoder output to the vector of its code, which has none.

All take encoder outputs z_e and code vectors z_q, [B, D, h, w] each, and give z_q with a gradient for z_e and
none for the code vectors: those are moved by terms of the loss, or by themselves.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vqprior.configs import schema

Carry = Callable[[Tensor, Tensor], Tensor]

OPPOSITE = 1e-6  # 1 + cos of the angle between two vectors, below which no plane of rotation is defined


def straight_through(z_e: Tensor, z_q: Tensor) -> Tensor:
    """The gradient as it comes: VQ-VAE (arXiv 1711.00937), section 3.2; the value is z_q, to the last bit."""
    return _StraightThrough.apply(z_e, z_q.detach())


class _StraightThrough(torch.autograd.Function):
    """z_e + (z_q - z_e).detach(), without the rounding and the two passes over memory; a view of z_q."""

    @staticmethod
    def forward(ctx: Any, z_e: Tensor, z_q: Tensor) -> Tensor:
        return z_q.view_as(z_q)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def rotation(z_e: Tensor, z_q: Tensor) -> Tensor:
    """The gradient turned as z_e would have to be turned, and stretched, to be z_q.

    Restructuring Vector Quantization with the Rotation Trick, Fifty et al. 2024,
    https://arxiv.org/abs/2410.06424, section 4.2: q = ||q|| / ||e|| R e with R = I - 2 r r' + 2 q^ e^', where
    a hat is the unit vector and r that of e^ + q^; the scale and R are constants to the gradient.

    What is done differently here, and why:
    - The value is z_q itself, not R e, which rounding makes another: it is what the codes are decoded from.
    - r r' is written with e^ + q^ as it is, whose squared length is 2 (1 + e^.q^).
    - Where the two point away from each other, or z_e is nothing, R is not defined: straight through there.
    """
    e, q = z_e.detach(), z_q.detach()
    tiny = torch.finfo(e.dtype).tiny
    length_e, length_q = (torch.linalg.vector_norm(x, dim=1, keepdim=True) for x in (e, q))
    e, q = e / length_e.clamp(min=tiny), q / length_q.clamp(min=tiny)
    middle, one_and_cosine = e + q, 1 + _dot(e, q)
    reflected = middle * (_dot(middle, z_e) / one_and_cosine.clamp(min=OPPOSITE))
    defined = (one_and_cosine > OPPOSITE) & (length_e > tiny)
    stretch = torch.where(defined, length_q / length_e.clamp(min=tiny), 1)  # infinite times nothing is NaN
    turned = (z_e - reflected + 2 * q * _dot(e, z_e)) * stretch
    carried = torch.where(defined, turned, z_e)
    return z_q.detach() + (carried - carried.detach())


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of the vectors [B, D, h, w], as [B, 1, h, w]."""
    return (a * b).sum(1, keepdim=True)


CARRIES: dict[schema.Gradient, Carry] = {"straight_through": straight_through, "rotation": rotation}
"""By the names that `stage1.gradient` takes."""
