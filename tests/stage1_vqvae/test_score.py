"""By what the checkpoint of stage one is chosen."""

import pytest

from vqprior.configs.schema import Adversary, Stage1
from vqprior.stage1_vqvae.measure import Reconstruction
from vqprior.stage1_vqvae.score import how_chosen, score_of


def measured(loss: float, perceptual: float | None) -> Reconstruction:
    return Reconstruction(loss, 0.0, 0.0, loss, None, (), perceptual)


def test_error_alone_decides_where_nothing_else_is_asked_for():
    assert score_of(Stage1(), measured(0.02, None), 0.1, 500) == 0.02
    assert how_chosen(Stage1()) == "by the error on the validation split"


def test_a_perceptual_distance_counts_as_much_as_in_training():
    settings = Stage1(perceptual=0.5)
    assert score_of(settings, measured(0.02, 0.3), 0.1, 500) == pytest.approx(0.2 + 0.15)
    assert "perceptual distance" in how_chosen(settings)


def test_beside_an_adversary_a_later_checkpoint_is_better_whatever_its_error():
    settings = Stage1(perceptual=0.5, adversarial=0.1, adversary=Adversary(start=0.5))
    early, late = (
        score_of(settings, measured(*found), 0.1, step)
        for found, step in (((0.02, 0.3), 500), ((0.03, 0.4), 600))
    )
    assert late < early and "as the latest" in how_chosen(settings)
