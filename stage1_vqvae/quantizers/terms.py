"""Sums of terms of the loss."""

from collections.abc import Iterable
from functools import reduce
from operator import add

from torch import Tensor


def total(terms: Iterable[Tensor]) -> Tensor:
    """The sum of terms, in their order."""
    return reduce(add, terms)


def added(terms: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The sums of the terms of each name, which all have; none of none."""
    listed = [*terms]
    return {name: total(of_one[name] for of_one in listed) for name in (listed[0] if listed else ())}
