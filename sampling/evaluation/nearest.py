"""The nearest training images of samples: are they copies?"""

import torch
from torch import Tensor

QUERIES, REFERENCES, CANDIDATES = 512, 8192, 4


def nearest(queries: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    """Euclidean distance [Q] fp64 and index [Q] of the nearest of references [N, F] to each of queries [Q, F].

    In chunks, by |r|^2 - 2 q . r first; the distances of the best candidates are then taken from their differences, so
    that a copy is at distance 0 and not at the square root of a rounding error.
    """
    found = [_nearest(part, references) for part in queries.split(QUERIES)]
    distances, indices = (torch.cat(parts) for parts in zip(*found))
    return distances, indices


def _nearest(queries: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    best, which = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(references), REFERENCES):
        part = references[start : start + REFERENCES].float()
        scores = torch.addmm(part.square().sum(1), queries.float(), part.T, alpha=-2)  # distance^2 less |q|^2
        values, indices = scores.topk(min(CANDIDATES, len(part)), largest=False)
        best, which = torch.cat([best, values], 1), torch.cat([which, indices + start], 1)
        best, kept = best.topk(min(CANDIDATES, best.shape[1]), largest=False)
        which = which.gather(1, kept)
    differences = references[which].double() - queries[:, None].double()  # [Q, candidates, F]
    distances, kept = differences.square().sum(2).sqrt().min(1)
    return distances, which.gather(1, kept[:, None])[:, 0]


def copy_share(samples: Tensor, real: Tensor) -> float:
    """Share of samples nearer to the training set than 99 % of new real images are, from both's distances [N] and [M]."""
    return (samples < real.double().quantile(0.01)).double().mean().item()
