"""Distances between sets of features, against closed forms, brute force and torch-fidelity."""

import pytest
import torch

from vqprior.evaluation import distances
from vqprior.evaluation.distances import Gaussian, frechet, kid, prdc


def normal(count: int, features: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    return (
        torch.randn(count, features, generator=torch.Generator().manual_seed(seed)).double() * scale + shift
    )


def test_frechet_of_commuting_covariances_is_the_closed_form():
    """For diagonal covariances: |m - n|^2 + sum (sqrt a - sqrt b)^2."""
    m, n, a, b = (torch.tensor(x).double() for x in ([0, 1, 2], [1, 1, 0], [1, 4, 0.25], [9, 4, 0]))
    expected = (m - n).square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    assert frechet(Gaussian(m, a.diag()), Gaussian(n, b.diag())) == pytest.approx(expected.item(), rel=1e-12)


def test_frechet_of_a_set_that_was_moved_is_the_square_of_the_way():
    x = normal(50, 7, 0)
    assert frechet(Gaussian.of(x), Gaussian.of(x + 3)) == pytest.approx(7 * 9, rel=1e-9)
    assert frechet(Gaussian.of(x), Gaussian.of(x)) == pytest.approx(0, abs=1e-9)
    assert frechet(Gaussian.of(2 * x), Gaussian.of(x)) == pytest.approx(
        x.mean(0).square().sum() + Gaussian.of(x).covariance.trace()
    )


def test_frechet_is_symmetric_and_stands_fewer_rows_than_features():
    x, y = normal(5, 12, 1), normal(9, 12, 2, 2.0)
    a, b = Gaussian.of(x), Gaussian.of(y)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-9) and frechet(a, b) > 0
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)


def test_frechet_and_kid_are_those_of_torch_fidelity():
    pytest.importorskip("torch_fidelity")
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = normal(60, 8, 3), normal(80, 8, 4, 1.3, 0.2)
    theirs = fid_statistics_to_metric(
        fid_features_to_statistics(x), fid_features_to_statistics(y), verbose=False
    )
    assert frechet(Gaussian.of(x), Gaussian.of(y)) == pytest.approx(
        theirs["frechet_inception_distance"], rel=1e-6
    )
    theirs = kid_features_to_metric(x, y, kid_subsets=7, kid_subset_size=30, rng_seed=5, verbose=False)
    mean, deviation = kid(x, y, subsets=7, subset_size=30, seed=5)
    assert mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert deviation == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-9)


def test_kid_is_the_double_sum_over_pairs():
    x, y = normal(6, 3, 5), normal(6, 3, 6, 1.5)
    kernel = lambda a, b: ((a @ b).item() / 3 + 1) ** 3
    within = sum(kernel(z[i], z[j]) for z in (x, y) for i in range(6) for j in range(6) if i != j) / 30
    between = sum(kernel(a, b) for a in x for b in y) / 36
    mean, deviation = kid(x, y, subsets=3, subset_size=1000)
    assert mean == pytest.approx(within - 2 * between, rel=1e-9) and deviation == 0


def test_kid_of_one_distribution_is_zero_within_its_error():
    mean, deviation = kid(normal(2000, 4, 7), normal(2000, 4, 8), subsets=50, subset_size=200)
    assert abs(mean) < deviation
    assert (
        kid(normal(2000, 4, 7), normal(2000, 4, 8, shift=1.0), subsets=50, subset_size=200)[0]
        > 10 * deviation
    )


def brute_prdc(real: list, fake: list, k: int) -> dict[str, float]:
    """By the definitions, one pair after the other."""
    reach = lambda points: [sorted((p - q).norm().item() for q in points)[k] for p in points]
    real_reach, fake_reach = reach(real), reach(fake)
    inside = [[(r - f).norm().item() <= d for r, d in zip(real, real_reach, strict=True)] for f in fake]
    return {
        "precision": sum(any(row) for row in inside) / len(fake),
        "recall": sum(
            any((f - r).norm().item() <= d for f, d in zip(fake, fake_reach, strict=True)) for r in real
        )
        / len(real),
        "density": sum(map(sum, inside)) / (k * len(fake)),
        "coverage": sum(any(column) for column in zip(*inside, strict=True)) / len(real),
    }


@pytest.mark.parametrize("rows", [3, 1000])
def test_prdc_is_what_the_definitions_say(monkeypatch, rows):
    monkeypatch.setattr(distances, "ROWS", rows)
    real, fake = normal(30, 3, 9), normal(25, 3, 10, 0.7, 0.4)
    assert prdc(real, fake, k=4) == pytest.approx(brute_prdc([*real], [*fake], 4), rel=1e-12)


def test_precision_and_recall_are_those_of_torch_fidelity():
    pytest.importorskip("torch_fidelity")
    from torch_fidelity.metric_prc import prc_features_to_metric

    real, fake = normal(60, 5, 11), normal(70, 5, 12, 0.6, 0.5)
    theirs = prc_features_to_metric(
        fake, real, prc_neighborhood=3, prc_batch_size=20, save_cpu_ram=False, verbose=False
    )
    ours = prdc(real, fake, k=3)
    assert ours["precision"] == pytest.approx(theirs["precision"]) and ours["recall"] == pytest.approx(
        theirs["recall"]
    )


def test_prdc_of_a_set_with_itself_and_with_one_far_away():
    x = normal(40, 3, 13)
    assert prdc(x, x) == {
        "precision": 1,
        "recall": 1,
        "density": pytest.approx(6 / 5, abs=0.2),
        "coverage": 1,
    }
    assert set(prdc(x, x + 100).values()) == {0}


@pytest.mark.parametrize(
    "spoilt", [torch.ones(1, 3), torch.ones(9, 4), torch.full((9, 3), torch.nan), torch.ones(9)]
)
def test_what_cannot_be_compared_is_refused(spoilt):
    fine = normal(9, 3, 14)
    for compare in (lambda: kid(fine, spoilt), lambda: prdc(fine, spoilt)):
        with pytest.raises(ValueError):
            compare()
    with pytest.raises(ValueError):
        frechet(Gaussian.of(fine), Gaussian.of(spoilt))
