"""log2 p(codes | label) of a generator, and the classifier that comes with it."""

from itertools import product

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.sampling.tiny import tiny_generator
from vqprior.configs import UserError
from vqprior.sampling.choice import Sampling


@pytest.fixture(scope="module")
def generator():
    return tiny_generator()  # maps of 4 x 5, K = 7


def test_the_probabilities_of_all_maps_sum_to_one():
    small = tiny_generator(K=3, size=(8, 8))
    maps = np.array([*product(range(3), repeat=4)]).reshape(-1, 2, 2)
    for label in ("a", "b", None):
        log_p = small.log2_prob(maps, label, batch_size=32)
        assert log_p.shape == (81,) and log_p.dtype == np.float64 and (log_p < 0).all()
        assert np.exp2(log_p).sum() == pytest.approx(1, abs=1e-5)
    unconditional = tiny_generator(K=3, size=(4, 16), classes=0)
    assert np.exp2(unconditional.log2_prob(maps.reshape(-1, 1, 4))).sum() == pytest.approx(1, abs=1e-5)


def test_it_is_the_cross_entropy_in_bits(generator):
    codes, labels = torch.randint(7, (5, 4, 5)), torch.tensor([0, 2, 1, 0, 2])
    nats = F.cross_entropy(generator.networks.priors[0](codes, labels), codes, reduction="none").sum((1, 2))
    assert np.allclose(generator.log2_prob(codes, labels), -nats / np.log(2), rtol=1e-5)
    assert np.array_equal(generator.log2_prob(codes.numpy(), [*"acbac"]), generator.log2_prob(codes, labels))


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_images_have_the_likelihood_of_their_codes_in_any_batch(generator, batch_size):
    images = generator.sample(5, labels="b")
    codes = generator.encode(images)
    expected = generator.log2_prob(codes, "b")
    assert np.allclose(generator.log2_prob(images, "b", batch_size=batch_size), expected, rtol=1e-5)


def test_the_posterior_is_bayes_rule(generator):
    codes = torch.randint(7, (6, 4, 5), generator=torch.Generator().manual_seed(3))
    p = np.exp2(np.stack([generator.log2_prob(codes, label) for label in range(3)], axis=1))
    posterior = generator.posterior(codes)
    assert np.allclose(posterior, p / p.sum(1, keepdims=True)) and np.allclose(posterior.sum(1), 1)
    assert np.array_equal(generator.classify(codes), p.argmax(1))


def test_the_classifier_knows_what_was_sampled(generator):
    """The prior is opinionated: samples of a class are likeliest under it far more often than by chance."""
    labels = torch.arange(60) % 3
    codes = generator.networks.codes(torch.arange(60), labels, Sampling(batch_size=60))
    assert (generator.classify(codes) == labels.numpy()).mean() > 0.7


def test_mistakes_are_answered(generator):
    codes = np.zeros((2, 4, 5), dtype=np.int64)
    for call, words in (
        (lambda: generator.log2_prob(codes + 7, 0), "from 7 to 7; those of this run are from 0 to 6"),
        (lambda: generator.log2_prob(codes[0], 0), r"int64 \[4, 5\]; it takes images uint8 .* or codes"),
        (lambda: generator.log2_prob(codes.astype(float), 0), "float64"),
        (lambda: generator.log2_prob(codes[:0], 0), r"\[0, 4, 5\]"),
        (lambda: generator.log2_prob(np.zeros((2, 16, 20, 1), np.uint8), 0), r"uint8 \[N, 16, 20, 3\]"),
        (lambda: generator.log2_prob(np.zeros((2, 16, 20, 3)), 0), "float64"),
        (lambda: generator.log2_prob(codes, [0, 1, 2]), "2 images, but 3 labels"),
        (lambda: generator.log2_prob(codes, "wasp"), "0 a, 1 b, 2 c"),
        (lambda: tiny_generator(label_dropout=0).log2_prob(codes), "give a label, one of 0 a, 1 b, 2 c"),
        (lambda: tiny_generator(classes=0).log2_prob(codes, 0), "unconditional"),
        (lambda: tiny_generator(classes=0).posterior(codes), "no classes to tell apart"),
    ):
        with pytest.raises(UserError, match=words):
            call()
