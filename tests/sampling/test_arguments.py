"""What calls from Python take, and what they answer to what they do not."""

import warnings

import numpy as np
import pytest
import torch

from tests.pretend_device import pretend
from tests.sampling.tiny import tiny_generator
from vqprior import Generator
from vqprior.configs import UserError
from vqprior.sampling.score import Usual

IMAGES = np.random.default_rng(0).integers(256, size=(2, 16, 20, 3), dtype=np.uint8)
MASK = np.arange(16)[:, None].repeat(20, 1) > 7
OF_TWO = "for 2 images; it takes one"


@pytest.fixture(scope="module")
def generator() -> Generator:
    return tiny_generator()


@pytest.fixture(scope="module")
def usual(generator) -> Usual:
    return generator.usual(pictures=IMAGES)


MISTAKES = [
    ("sample", dict(n=True), "n is True; it is a whole number"),
    ("sample", dict(n=2, seed=None), "seed is None; it is a whole number"),
    ("sample", dict(n=2, seed=True), "seed is True; it is a whole number"),
    ("sample", dict(n=2, batch_size=True), "batch_size is True; it is a whole number"),
    ("sample", dict(n=2, temperature="1"), f"temperature is '1' {OF_TWO} number"),
    ("sample", dict(n=2, temperature=2**2000), f"temperature is .* {OF_TWO} number"),
    ("sample", dict(n=2, temperature=[1e40, 1]), "temperature is inf; it takes finite numbers"),
    ("sample", dict(n=2, temperature=[[1], [1, 2]]), r"temperature is \[\[1\], \[1, 2\]\] for 2 images"),
    ("sample", dict(n=2, temperature=torch.ones(2).to_sparse()), f"(?s)temperature is .* {OF_TWO} number"),
    ("sample", dict(n=2, temperature=torch.ones(2, device="meta")), f"temperature is .* {OF_TWO} number"),
    ("sample", dict(n=2, temperature=[torch.tensor(True)] * 2), f"temperature is bool .* {OF_TWO} number"),
    ("sample", dict(n=2, top_k=2**63), f"top_k is {2**63} {OF_TWO} whole number"),
    ("sample", dict(n=2, top_k=np.array([2**63, 1], np.uint64)), f"top_k is uint64 .* {OF_TWO} whole"),
    ("sample", dict(n=2, top_k=torch.ones(2, dtype=torch.bfloat16)), f"top_k is float32 .* {OF_TWO} whole"),
    ("complete", dict(n=True), "n is True and draws is True; they are whole numbers"),
    ("complete", dict(n=1, draws=True), "draws is True; they are whole numbers"),
    ("complete", dict(seed=None), "seed is None; it is a whole number"),
    ("score", dict(seed=None), "seed is None; it is a whole number"),
    *(
        ("score", dict(restorations=wrong), f"restorations is {wrong}; they take")
        for wrong in (1.5, True, None)
    ),
    *(("score", dict(quantile=wrong), f"quantile is {wrong!r} and") for wrong in ("x", None, True, 1j)),
    ("score", dict(usual="x"), "usual is of type str; it takes what `usual` of this generator gives"),
    ("score", dict(usual=IMAGES), "usual is of type ndarray"),
    ("score", dict(usual=Usual("x", None)), r"no array \[V, P\]"),
    ("score", dict(usual=Usual(np.zeros((0, 20)), None)), r"no array \[V, P\]"),
    ("score", dict(usual=Usual(np.zeros((2, 20)), "a")), "of class 'a'; it takes a number"),
]


@pytest.mark.parametrize(("method", "given", "words"), MISTAKES)
def test_what_makes_no_sense_is_answered_in_words(generator, usual, method, given, words):
    before = {"sample": {}, "complete": dict(image=IMAGES[0], mask=MASK)}
    before["score"] = dict(images=IMAGES, usual=usual)
    with warnings.catch_warnings(), pytest.raises(UserError, match=words):
        warnings.simplefilter("error")
        getattr(generator, method)(**before[method] | given)


NUMBERS = {
    "bf16": lambda: torch.tensor([0.5, 2.0], dtype=torch.bfloat16),
    "with gradients": lambda: torch.tensor([0.5, 2.0], requires_grad=True),
    "a list of tensors": lambda: [torch.tensor(0.5), torch.tensor(2.0, requires_grad=True)],
    "a list of bf16 and a number": lambda: (torch.tensor(0.5, dtype=torch.bfloat16), 2),
    "on a device": lambda: torch.tensor([0.5, 2.0]).to("cuda"),
    "a list of tensors on a device": lambda: [torch.tensor(0.5).to("cuda"), torch.tensor(2.0).to("cuda")],
    "of another byte order": lambda: np.array([0.5, 2.0], ">f8"),
    "of more bits": lambda: np.array([0.5, 2.0], np.longdouble),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_of_any_kind_are_what_plain_numbers_are(generator, kind):
    expected = generator.sample_codes(2, labels=0, temperature=[0.5, 2.0])
    assert not np.array_equal(expected, generator.sample_codes(2, labels=0))
    with pretend("cuda"):
        given = NUMBERS[kind]()
        found = generator.sample_codes(2, labels=0, temperature=given)
        assert np.array_equal(generator.sample_codes(2, labels=0, temperature=given[0])[0], expected[0])
    assert np.array_equal(found, expected)


def test_numbers_in_arrays_without_axes_are_numbers(generator, usual):
    expected = generator.score(IMAGES, usual, quantile=0.5, restorations=2)
    for wrap in (np.array, torch.tensor):
        found = generator.score(IMAGES, usual, quantile=wrap(0.5), restorations=wrap(2))
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert generator.sample_codes(1, temperature=2**63).shape == (1, 4, 5)  # beyond int64


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["i2", "i4", "i8", "u2", "u8"])
def test_codes_of_any_byte_order_are_those_codes(generator, order, kind):
    codes = generator.sample_codes(2)
    given = codes.astype(order + kind)
    assert np.array_equal(generator.decode(given), generator.decode(codes))
    assert np.array_equal(generator.log2_prob(given, 0), generator.log2_prob(codes, 0))
