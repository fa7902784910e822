import copy
import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
import torch

from tests.sampling.tiny import tiny_generator
from vqprior import Generator
from vqprior.configs import UserError
from vqprior.sampling.choice import Sampling


@pytest.fixture(scope="module")
def generator(finished_run) -> Generator:
    return Generator.from_run(finished_run)


def test_shapes_and_classes_in_turn(generator):
    images = generator.sample(5)
    assert images.shape == (5, 8, 8, 3) and images.dtype == np.uint8
    assert np.array_equal(images, generator.sample(labels=["ant", "bee", "ant", "bee", 0]))
    assert np.array_equal(images, generator.sample(labels=[0, 1, 0, 1, np.int64(0)]))


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
    for parameter in opinionated.networks.priors[0].parameters():
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
    assert not any(p.requires_grad for p in generator.networks.priors[0].parameters())


def test_codes_decode_to_the_images(generator):
    numbers = torch.arange(3)
    codes = generator.networks.codes(numbers, generator.networks.labels_for(numbers), Sampling())
    assert codes[0].shape == (3, 2, 2) and codes[0].max() < 16
    assert np.array_equal(generator.decode(codes), generator.sample(3, batch_size=3))


SETTINGS = dict(
    labels=["a", "b", "c", "a", 1],
    guidance=[1.0, 3.0, 0.0, 1.5, 1.0],
    temperature=[1.0, 0.5, 1.0, 2.0, 0.7],
    top_k=[0, 3, 0, 2, 5],
    top_p=[1.0, 0.9, 0.4, 1.0, 0.8],
)


@pytest.mark.parametrize("batch_size", [2, 3, 5, 64])
def test_each_image_may_have_settings_of_its_own(batch_size):
    """Image i under its own numbers is image i of a call with these numbers for all."""
    generator = tiny_generator()
    images = generator.sample(**SETTINGS, seed=1, batch_size=batch_size)
    for i in range(5):
        own = {name: values[i] for name, values in SETTINGS.items()}
        assert np.array_equal(generator.sample(5, **own, seed=1)[i], images[i])
    assert len({image.tobytes() for image in images}) == 5


def test_numbers_for_each_image_may_be_arrays_and_tensors():
    generator = tiny_generator()
    expected = generator.sample(**SETTINGS)
    settings = SETTINGS | {"labels": np.array([0, 1, 2, 0, 1]), "top_k": torch.tensor(SETTINGS["top_k"])}
    assert np.array_equal(
        generator.sample(**settings | {"guidance": np.array(SETTINGS["guidance"])}), expected
    )


def test_guidance_of_one_among_others_is_no_guidance():
    """Also in one chunk with guided images, where both forwards are run for all."""
    generator, labels = tiny_generator(), ["b"] * 6
    mixed = generator.sample(labels=labels, guidance=[1, 4, 1, 1, 0, 1], seed=1)
    plain = generator.sample(labels=labels, seed=1)
    same = [np.array_equal(a, b) for a, b in zip(mixed, plain, strict=True)]
    assert same == [True, False, True, True, False, True]


@pytest.mark.parametrize("method", ["cached", "parallel", "plain"])
def test_guidance_of_ones_needs_no_hidden_label(method):
    """It leaves the prior as it is, in whatever way the codes are drawn."""
    unconditional = tiny_generator(classes=0)
    ones = unconditional.sample_codes(2, guidance=[1.0, 1.0], method=method)
    assert np.array_equal(ones, unconditional.sample_codes(2, method=method))


def test_networks_that_do_not_belong_together_are_refused():
    """Maps of another size had been decoded to pictures of another size, a posterior was of some classes."""
    tiny, other = tiny_generator(), tiny_generator(size=(20, 16))
    for networks, names, words in (
        ((tiny.tokenizer, other.networks.priors), "abc", "prior is of 5x4 codes of 7, and the VQ-VAE of 4x5"),
        ((tiny.tokenizer, tiny.networks.priors * 2), "abc", r"prior is of 4x5 codes of 7 \+ 4x5 codes"),
        ((tiny.tokenizer, tiny.networks.priors), "ab", "prior has 3 classes, and 2 have names"),
        ((tiny.tokenizer, tiny.networks.priors), "", "prior has 3 classes, and 0 have names"),
    ):
        with pytest.raises(UserError, match=words):
            Generator(*networks, names)


def test_mistakes_in_numbers_for_each_image_are_answered(generator):
    for call, words in (
        (lambda: generator.sample(3, temperature=[1.0, 2.0]), "temperature .* for 3 images"),
        (lambda: generator.sample(2, temperature=[1.0, 0.0]), "temperature is 0; it is from .* top_k 1"),
        (lambda: generator.sample(2, top_p=1.5), "top_p is 1.5"),
        (lambda: generator.sample(2, top_k=[1, 2.5]), "whole number"),
        (lambda: generator.sample(2, guidance=[1.0, -1.0]), "guidance is -1; it is from 0"),
        (
            lambda: generator.sample(2, guidance=[1.0, 2.0]),
            "guidance is 2, but the prior was not trained for it",
        ),
        (lambda: generator.sample(2, batch_size=0), "batch_size is 0"),
        (lambda: generator.sample(2, precision="fp8"), "no, bf16, fp16"),
        (lambda: generator.sample(0), "n is 0; .* at least 1"),
        (lambda: generator.sample(2.5), "whole number"),
        (lambda: generator.sample(2, batch_size=2.5), "whole number"),
        (lambda: generator.sample(2, method="paralel"), "cached, parallel"),
        *((lambda seed=seed: generator.sample(2, seed=seed), "seed is") for seed in (1.5, 2**63, "1")),
    ):
        with pytest.raises(UserError, match=words):
            call()


@pytest.mark.parametrize("method", ["cached", "parallel", "plain"])
def test_a_call_under_inference_mode_changes_nothing_for_those_outside_of_it(method):
    """Memory that was kept of it may not be written to elsewhere: the next call had failed."""
    generator = tiny_generator()
    draw = lambda: generator.sample(5, seed=1, method=method, batch_size=2)
    with torch.inference_mode():
        inside = draw()
    outside = draw()
    with torch.inference_mode():
        again = draw()
    assert (
        np.array_equal(inside, outside) and np.array_equal(inside, again) and np.array_equal(inside, draw())
    )


def test_calls_from_several_threads_disturb_each_other_in_nothing():
    """Each works in memory of its own, however they take turns; afterwards that of one is kept, until it is
    released."""
    generator = tiny_generator()
    draw = lambda i: generator.sample(
        6, labels="abc"[i % 3], seed=i, guidance=1 + i % 2, batch_size=2 + i % 2
    )
    expected = [draw(i) for i in range(12)]
    with ThreadPoolExecutor(4) as threads:
        found = [*threads.map(draw, range(12))]
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert len(generator.networks._spares[0]._kept) == 1
    generator.networks.release()
    assert not generator.networks._spares[0]._kept and np.array_equal(draw(5), expected[5])


def test_a_hundred_calls_disturb_each_other_in_nothing_and_leave_nothing_behind():
    """Other labels, sizes of batch and kinds of call in between; then live tensors and memory are what they
    were."""
    generator = tiny_generator()
    image, mask = generator.sample(1, labels="a")[0], np.arange(16)[:, None].repeat(20, 1) > 7
    weights = {name: value.clone() for name, value in generator.networks.priors[0].state_dict().items()}
    expected = generator.sample(**SETTINGS, batch_size=5)

    def call(i: int) -> None:
        if i % 10 == 3:
            generator.complete(image, mask, n=2, labels=i % 3, batch_size=2)
        elif i % 10 == 7:
            generator.classify(image[None].repeat(1 + i % 4, 0))
        else:
            generator.sample(1 + i % 7, labels="abc"[i % 3], seed=i, guidance=1 + i % 2, batch_size=1 + i % 5)

    def in_use() -> tuple[int, int]:
        gc.collect()
        return sum(
            type(thing) is torch.Tensor for thing in gc.get_objects()
        ), psutil.Process().memory_info().rss

    for i in range(20):
        call(i)
    tensors, memory = in_use()
    for i in range(100):
        call(i)
    tensors_after, memory_after = in_use()
    assert tensors_after == tensors
    assert memory_after - memory < 8 * 2**20
    assert np.array_equal(generator.sample(**SETTINGS, batch_size=5), expected)
    assert all(
        torch.equal(value, weights[name]) for name, value in generator.networks.priors[0].state_dict().items()
    )
