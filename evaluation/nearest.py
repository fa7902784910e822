"""The nearest training images of samples: are they copies?"""

from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor

from vqprior.runtime.processes import each_in_turn, gather_tensor
from vqprior.runtime.transfer import onto

CPU = torch.device("cpu")
NUMBERS = 2**26  # fp32 numbers of references, or distances, held at once
REFERENCES = 2**12  # in a part, at most: so that there are parts for several processes
QUERIES = 512  # compared at once
CANDIDATES = 4  # references that the distance of each query is taken to in fp64


class Points(NamedTuple):
    """Points that are read when they are needed: those of a data set need not fit into memory."""

    read: Callable[[Tensor], Tensor]  # indices [n] -> [n, F] fp32
    count: int

    @classmethod
    def of(cls, x: Tensor) -> Self:
        """The rows of x [N, F]."""
        return cls(lambda indices: x[indices], len(x))


def nearest(queries: Points, references: Points, device: torch.device = CPU) -> tuple[Tensor, Tensor]:
    """Distance [Q] fp64 and index [Q] of the nearest of N references to each of Q queries, on the CPU.

    Distances are Euclidean. Of up to `CANDIDATES` references at one distance, the first is taken. The
    references are read once, in parts that are shared out over the processes; the result is the same on all.
    Candidates are found by |r|^2 - 2 q . r, and their distances by the differences, so that a copy is at
    distance 0 and not at the square root of a rounding error.

    Args:
        device: that computes the products.
    """
    width = queries.read(torch.zeros(1, dtype=torch.int64)).shape[1]
    together = max(1, min(REFERENCES, NUMBERS // max(width, min(QUERIES, queries.count))))
    least = torch.full((queries.count,), torch.inf, dtype=torch.float64)
    which = torch.zeros(queries.count, dtype=torch.int64)

    def search(indices: Tensor) -> None:
        r = onto(references.read(indices), device).float()
        squares = r.square().sum(1)
        for part in torch.arange(queries.count).split(QUERIES):
            q = onto(queries.read(part), device).float()
            scores = torch.addmm(squares, q, r.T, alpha=-2)  # distance^2 less |q|^2
            candidates = scores.topk(min(CANDIDATES, len(r)), largest=False).indices
            distances, at = _first_least(_distances(q, r, candidates).cpu(), indices[candidates.cpu()])
            nearer = distances < least[part]  # parts ascend, so what was found first stays
            least[part] = torch.where(nearer, distances, least[part])
            which[part] = torch.where(nearer, at, which[part])

    each_in_turn(list(torch.arange(references.count).split(together)), search, "nearest")
    return _first_least(gather_tensor(least).T, gather_tensor(which).T)


def _distances(q: Tensor, r: Tensor, candidates: Tensor) -> Tensor:
    """Distances [n, c] fp64 of queries [n, F] to the references with indices [n, c] in r [N, F].

    They are taken by the differences.
    """
    on_apple = q.device.type == "mps"  # which has no fp64
    fp64 = (lambda x: x.cpu().double()) if on_apple else Tensor.double
    q = fp64(q)
    columns = [(fp64(r[column]) - q).square().sum(1).sqrt() for column in candidates.unbind(1)]
    return torch.stack(columns, 1)


def _first_least(distances: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """The least of distances [n, c] in each row, and the lowest of the indices [n, c] that has it."""
    least = distances.min(1).values
    return least, which.masked_fill(distances > least[:, None], torch.iinfo(torch.int64).max).min(1).values


def copy_share(samples: Tensor, real: Tensor) -> float:
    """Share of samples as near to the training set as the nearest 1 % of real images, or nearer, by distances
    [N] and [M]."""
    return (samples <= real.double().quantile(0.01)).double().mean().item()
