import torch

from vqprior.evaluation.code_models import independent
from vqprior.runtime.codes import Level


def test_codes_come_as_often_as_they_should_at_each_place():
    """Chi-square over 5 codes at each of 6 places, with a fixed seed: 99.99 % of right models stay below
    23.5."""
    p = torch.tensor([[0.5, 0.2, 0.2, 0.1, 0.0], [0.05, 0.05, 0.1, 0.3, 0.5]]).double().repeat(3, 1)
    codes = independent(p, Level(p.shape[-1], 2, 3), seed=1)(torch.arange(20_000)).flatten(1)
    for place in range(6):
        expected = p[place] * len(codes)
        counts = torch.bincount(codes[:, place], minlength=5)
        assert ((counts - expected) ** 2 / expected.clamp(min=1e-9)).sum() < 23.5


def test_one_distribution_serves_all_places_and_they_are_independent():
    codes = (
        independent(torch.tensor([0.5, 0.5]).double(), Level(2, 1, 2), seed=0)(torch.arange(20_000))
        .flatten(1)
        .double()
    )
    assert abs(codes.mean() - 0.5) < 0.01
    assert abs(torch.corrcoef(codes.T)[0, 1]) < 0.03


def test_map_i_is_map_i():
    model = independent(
        torch.rand(4, 7, generator=torch.Generator().manual_seed(0)).double(), Level(7, 2, 2), seed=3
    )
    assert torch.equal(model(torch.arange(10))[[7, 2]], model(torch.tensor([7, 2])))
    assert not torch.equal(
        model(torch.arange(10)), independent(torch.ones(7).double(), Level(7, 2, 2), seed=4)(torch.arange(10))
    )
