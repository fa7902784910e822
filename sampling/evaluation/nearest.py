"""The nearest training images of samples: are they copies?"""

from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor

NUMBERS, QUERIES, CANDIDATES = 2**26, 512, 4  # fp32 numbers of references, or distances, held at once; queries compared at once


class Points(NamedTuple):
    """Points that are read when they are needed: the pixels of a data set need not fit into memory."""

    read: Callable[[Tensor], Tensor]  # indices [n] -> [n, F] fp32
    count: int

    @classmethod
    def of(cls, x: Tensor) -> Self:
        """The rows of x [N, F]."""
        return cls(lambda indices: x[indices], len(x))


def nearest(queries: Points, references: Points) -> tuple[Tensor, Tensor]:
    """Euclidean distance [Q] fp64 and index [Q] of the nearest of N references to each of Q queries.

    The references are read once, a part at a time, by |r|^2 - 2 q . r; the distances of the best candidates are then taken
    from their differences, so that a copy is at distance 0 and not at the square root of a rounding error.
    """
    parts = torch.arange(queries.count).split(QUERIES)
    best = torch.empty(queries.count, 0)
    which = torch.empty(queries.count, 0, dtype=torch.int64)
    width = references.read(torch.zeros(1, dtype=torch.int64)).shape[1]
    for indices in torch.arange(references.count).split(max(1, NUMBERS // max(width, min(QUERIES, queries.count)))):
        r = references.read(indices).float()
        squares, kept = r.square().sum(1), []
        for part in parts:
            scores = torch.addmm(squares, queries.read(part).float(), r.T, alpha=-2)  # distance^2 less |q|^2
            kept.append(scores.topk(min(CANDIDATES, len(r)), largest=False))
        best = torch.cat([best, torch.cat([values for values, _ in kept])], 1)
        which = torch.cat([which, torch.cat([indices[at] for _, at in kept])], 1)
        best, order = best.topk(min(CANDIDATES, best.shape[1]), largest=False)
        which = which.gather(1, order)
    distances = torch.cat([_distances(queries.read(part), which[part], references) for part in parts])  # [Q, candidates]
    found, at = distances.min(1)
    return found, which.gather(1, at[:, None])[:, 0]


def _distances(q: Tensor, which: Tensor, references: Points) -> Tensor:
    """Distances [n, c] fp64 of queries [n, F] to the references with indices [n, c], by their differences."""
    columns = [(references.read(column).double() - q.double()).square().sum(1).sqrt() for column in which.unbind(1)]
    return torch.stack(columns, 1)


def copy_share(samples: Tensor, real: Tensor) -> float:
    """Share of samples nearer to the training set than 99 % of new real images are, from both's distances [N] and [M]."""
    return (samples < real.double().quantile(0.01)).double().mean().item()
