"""Distances between two sets of images, as sets of features.

Legend: N, M rows, F features. All arithmetic is in fp64, on the CPU: two sets of 10,000 with 2,048 features are about
2 * 10^12 multiply-adds, minutes on one core; most GPUs have no more fp64 than that, and Apple's have none.
"""

from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

ROWS = 1000  # of a matrix of distances that are in memory at once


class Gaussian(NamedTuple):
    """Mean and covariance of a set of features."""

    mean: Tensor  # [F] fp64
    covariance: Tensor  # [F, F] fp64, unbiased

    @classmethod
    def of(cls, features: Tensor) -> Self:
        """The Gaussian of features [N, F].

        Raises:
            ValueError: fewer than two rows, or numbers that are not finite.
        """
        x = _checked(features, 2)
        mean = x.mean(0)
        centred = x - mean
        return cls(mean, centred.T @ centred / (len(x) - 1))


def frechet(a: Gaussian, b: Gaussian) -> float:
    """Squared Frechet distance of two Gaussians, at least 0 (arXiv 1706.08500, Equation 6).

    |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)). The trace of the root is the sum of the singular values of
    C_a^(1/2) C_b^(1/2): no root of a matrix that is not symmetric, and nothing that fails where a covariance is singular.

    Raises:
        ValueError: they have different numbers of features.
    """
    if len(a.mean) != len(b.mean):
        raise ValueError(f"the sets have {len(a.mean)} and {len(b.mean)} features; they must have the same")
    overlap = torch.linalg.svdvals(_root(a.covariance) @ _root(b.covariance)).sum()
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * overlap
    return max(distance.item(), 0.0)


def _root(covariance: Tensor) -> Tensor:
    """The symmetric root of a covariance."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def kid(a: Tensor, b: Tensor, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Kernel inception distance of features [N, F] and [M, F]: mean and standard deviation over subsets (arXiv 1801.01401).

    Each is the unbiased estimate of the squared MMD with the kernel (x . y / F + 1)^3 on `subset_size` rows of either set
    (or as many as there are), drawn as torch-fidelity draws them from the same seed. It may be slightly below 0. Where a
    subset is the whole of both sets there is nothing to draw, and the deviation is 0.

    Raises:
        ValueError: different numbers of features, fewer than two rows, or numbers that are not finite.
    """
    x, y = _pair(a, b, 2)
    size, chance = min(subset_size, len(x), len(y)), np.random.RandomState(seed)
    found = []
    for _ in range(subsets if size < max(len(x), len(y)) else 1):
        one, other = (rows[torch.from_numpy(chance.choice(len(rows), size, replace=False))] for rows in (x, y))
        same = sum(_kernel(rows, rows).fill_diagonal_(0).sum() for rows in (one, other)) / (size * (size - 1))
        found.append(same.item() - 2 * _kernel(one, other).mean().item())
    return float(np.mean(found)), float(np.std(found))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def prdc(real: Tensor, fake: Tensor, *, k: int = 5) -> dict[str, float]:
    """Precision and recall (arXiv 1904.06991), density and coverage (arXiv 2002.09797, Equations 3 to 6).

    A point's ball reaches to its k-th nearest neighbour in its own set, itself not counted. Precision: share of fake points
    in a real ball; recall: of real points in a fake ball; density: real balls a fake point lies in, over k; coverage:
    share of real balls with a fake point in them. Matrices of distances are made some rows at a time.

    Raises:
        ValueError: different numbers of features, k rows or fewer, or numbers that are not finite.
    """
    real, fake = _pair(real, fake, k + 1)
    real_reach, fake_reach = _reach(real, k), _reach(fake, k)
    in_real, covered = 0, torch.zeros(len(real), dtype=torch.bool)
    precise = recalled = 0
    for distances in _distances(fake, real):
        inside = distances <= real_reach
        precise += inside.any(1).sum().item()
        in_real += inside.sum().item()
        covered |= inside.any(0)
    for distances in _distances(real, fake):
        recalled += (distances <= fake_reach).any(1).sum().item()
    return {
        "precision": precise / len(fake),
        "recall": recalled / len(real),
        "density": in_real / (k * len(fake)),
        "coverage": covered.double().mean().item(),
    }


def _reach(x: Tensor, k: int) -> Tensor:
    """Distance [N] of each point to its k-th nearest neighbour."""
    return torch.cat([distances.kthvalue(k + 1).values for distances in _distances(x, x)])


def _distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Euclidean distances of some rows of x [N, F] after the other to all of y [M, F]."""
    for rows in x.split(ROWS):
        yield torch.cdist(rows, y)


def _pair(a: Tensor, b: Tensor, least: int) -> tuple[Tensor, Tensor]:
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(f"the sets have features {[*a.shape[1:]]} and {[*b.shape[1:]]}; they must have the same")
    return _checked(a, least), _checked(b, least)


def _checked(features: Tensor, least: int) -> Tensor:
    if features.ndim != 2 or len(features) < least:
        raise ValueError(f"features have shape {[*features.shape]}; expected [N, F] with N at least {least}")
    x = features.double()
    if not x.isfinite().all():
        raise ValueError("some features are not finite")
    return x
