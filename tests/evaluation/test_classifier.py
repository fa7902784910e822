from functools import partial

import pytest
import torch

from vqprior.evaluation.classifier import Classifier
from vqprior.stage1_vqvae.classification import RATE, Labelled, rate_at, shifted, train_classifier


def stripes(count: int) -> Labelled:
    """Noise with horizontal or vertical stripes: two classes that a mean colour cannot tell apart."""
    noise = torch.randint(0, 128, (count, 1, 12, 9), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count) % 2
    lines = torch.arange(12)[:, None] % 2, torch.arange(9)[None] % 2
    images = torch.stack(
        [x + 127 * lines[label].expand(12, 9) for x, label in zip(noise, labels.tolist(), strict=True)]
    )
    return Labelled(lambda at: images.to(torch.uint8)[at], labels)


def learnt(seed: int = 0, steps: int = 40) -> Classifier:
    build = partial(Classifier, 1, (12, 9), 2)
    return train_classifier(build, stripes(300), steps=steps, seed=seed, device=torch.device("cpu"))


def test_it_learns_what_can_be_learnt():
    data = stripes(500)
    predicted = learnt()(data.images(torch.arange(500)) / 255).argmax(1)
    assert (predicted == data.labels).double().mean() > 0.95


def test_it_is_a_function_of_data_and_seed():
    first, again, other = (learnt(seed, 3).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_any_size_and_batch():
    for channels, height, width in ((1, 28, 28), (3, 32, 32), (3, 8, 8), (1, 5, 21), (3, 64, 48)):
        model = Classifier(channels, (height, width), 4).eval()
        x = torch.rand(3, channels, height, width)
        assert model(x).shape == (3, 4) and model.features(x).shape == (3, 128)
        assert torch.allclose(model(x)[1:2], model(x[1:2]), atol=1e-5)


def test_shifts_are_small_and_depend_on_the_place_alone():
    images = torch.randint(0, 256, (6, 1, 9, 9), dtype=torch.uint8)
    moved = shifted(images, 0, torch.arange(6))
    assert moved.dtype == torch.uint8 and moved.shape == images.shape and not torch.equal(moved, images)
    assert torch.equal(moved[3:], shifted(images[3:], 0, torch.arange(3, 6)))
    moves = [(i, j) for i in range(-2, 3) for j in range(-2, 3)]
    inside = [
        [torch.equal(m[:, 2:7, 2:7], x[:, 2 + i : 7 + i, 2 + j : 7 + j]) for i, j in moves]
        for m, x in zip(moved, images, strict=True)
    ]
    assert all(any(found) for found in inside)


@pytest.mark.parametrize("steps", [1, 2, 5, 500])
def test_the_learning_rate_rises_to_its_peak_and_falls(steps):
    rates = torch.tensor([rate_at(step, steps) for step in range(steps)])
    peak = int(rates.argmax())
    assert rates.max().item() == pytest.approx(RATE) and rates.min() > 0
    assert (rates[: peak + 1].diff() > 0).all() and (rates[peak:].diff() <= 0).all()


def test_it_learns_without_a_bar_where_there_is_no_terminal(capfd):
    learnt(steps=2)
    assert capfd.readouterr() == ("", "")
