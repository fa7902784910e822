import copy

import numpy as np
import pytest
import torch

from configs import UserError
from vqprior import Generator


@pytest.fixture(scope="module")
def generator(finished_run) -> Generator:
    return Generator.from_run(finished_run)


def test_shapes_and_classes_in_turn(generator):
    images = generator.sample(5)
    assert images.shape == (5, 8, 8, 3) and images.dtype == np.uint8
    assert np.array_equal(images, generator.sample(labels=["ant", "bee", "ant", "bee", 0]))
    assert np.array_equal(images, generator.sample(labels=[0, 1, 0, 1, "0"]))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 64])
def test_image_i_is_image_i_for_every_batch_size_and_n(generator, batch_size):
    expected = generator.sample(7, batch_size=64)
    assert np.array_equal(generator.sample(7, batch_size=batch_size), expected)
    assert np.array_equal(generator.sample(2, batch_size=batch_size), expected[:2])


def test_seed_and_settings_matter(generator):
    images = generator.sample(6)
    assert not np.array_equal(generator.sample(6, seed=1), images)
    likeliest = [generator.sample(6, seed=seed, top_k=1, labels=0) for seed in (0, 1)]
    assert np.array_equal(*likeliest)  # nothing is left to chance


def test_the_label_matters(generator):
    """In a tiny run it has hardly been learnt: make it loud."""
    opinionated = copy.deepcopy(generator)
    torch.manual_seed(0)
    for parameter in opinionated.prior.parameters():
        torch.nn.init.normal_(parameter)
    assert not np.array_equal(opinionated.sample(6, labels="bee"), opinionated.sample(6, labels="ant"))


def test_mistakes_are_answered(generator):
    for call, words in (
        (lambda: generator.sample(), "how many"),
        (lambda: generator.sample(3, labels=[0]), "1 labels"),
        (lambda: generator.sample(labels=["wasp"]), "0 ant, 1 bee"),
        (lambda: generator.sample(2, labels=2), "no class 2"),
    ):
        with pytest.raises(UserError, match=words):
            call()


def test_it_can_be_called_again_and_leaves_no_gradients(generator):
    first = generator.sample(3)
    generator.sample(4, seed=9)
    assert np.array_equal(generator.sample(3), first)
    assert not any(p.requires_grad for p in generator.prior.parameters())


def test_codes_decode_to_the_images(generator):
    numbers = torch.arange(3)
    codes = generator.sample_codes(numbers, generator.labels_for(numbers))
    assert codes.shape == (3, 2, 2) and codes.max() < 16
    assert np.array_equal(generator.decode(codes).permute(0, 2, 3, 1).numpy(), generator.sample(3, batch_size=3))
