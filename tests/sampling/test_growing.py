"""Codes while they are drawn: they end as those drawn at once, whoever else draws meanwhile."""

import pytest
import torch

from tests.sampling.test_parallel import METHODS, networks
from tests.sampling.tiny import tiny_generator
from tests.stage2_prior.every_prior import KINDS, opinionated, some_codes
from vqprior.runtime.codes import Level
from vqprior.sampling.choice import Choice, Sampling
from vqprior.sampling.networks import Networks

IMAGES = torch.arange(5) + 2
LABELS = IMAGES % 3


def snapshots(steps) -> list[tuple[torch.Tensor, ...]]:
    return [tuple(of_level.clone() for of_level in codes) for codes in steps]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_the_last_codes_are_those_drawn_at_once(kind, method):
    both = networks(kind)
    (known,) = some_codes(both.tokenizer.levels, 5)
    known[:, 1:] = -1
    for kept in (None, (known,)):
        sampling = Sampling(3, Choice(0.8, guidance=1.5), batch_size=5, method=method)
        seen = snapshots(both.growing(IMAGES, LABELS, sampling, kept))
        assert torch.equal(seen[-1][0], both.codes(IMAGES, LABELS, sampling, kept)[0])
        assert len(seen) == 3 if method != "parallel" else 2 <= len(seen) <= 12


def test_rows_appear_one_by_one_and_stay():
    both = networks("gated_pixelcnn")
    (*_, last), seen = (snapshots(both.growing(IMAGES, LABELS, Sampling())) for _ in range(2))
    for i, (codes,) in enumerate(seen):
        assert torch.equal(codes[:, : i + 1], last[0][:, : i + 1]) and (codes[:, i + 1 :] == -1).all()


@pytest.mark.parametrize("method", ["cached", "parallel"])
def test_a_finer_level_begins_once_the_coarser_is_done(method):
    levels = Level(7, 2, 2), Level(7, 4, 4)
    priors = [
        opinionated("transformer", level, 3, above, dtype=torch.float32)
        for level, above in zip(levels, ((), levels[:1]), strict=True)
    ]
    both = Networks(tiny_generator(size=(8, 8)).tokenizer, priors[0], "abc")
    both.priors, both._spares = tuple(priors), both._spares * 2
    seen = snapshots(both.growing(IMAGES, LABELS, Sampling(method=method)))
    counts = [len(codes) for codes in seen]
    assert counts == sorted(counts) and {*counts} == {1, 2}
    assert all(torch.equal(codes[0], seen[-1][0]) for codes in seen if len(codes) == 2)
    assert all((of_level >= 0).all() for of_level in seen[-1])


def test_two_that_draw_in_turn_get_their_own_and_one_that_leaves_disturbs_nobody():
    both, others = networks("pixelsnail"), Sampling(seed=9)
    first, second, third = (
        both.growing(IMAGES, LABELS, sampling) for sampling in (Sampling(), others, others)
    )
    next(third)
    together = [(a[0].clone(), b[0].clone()) for a, b in zip(first, second, strict=True)]
    third.close()
    for drawn, sampling in zip(together[-1], (Sampling(), others), strict=True):
        assert torch.equal(drawn, both.codes(IMAGES, LABELS, sampling)[0])
    assert not torch.equal(*together[-1])
