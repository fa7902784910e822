"""Sampling on a pretend GPU and a pretend Mac: every option, no waits, and the safe way where a device is
wrong."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from tests.pretend_device import DeviceTensor, pretend
from tests.sampling.tiny import tiny_generator
from tests.stage2_prior.every_prior import settings
from vqprior import Generator
from vqprior.runtime.codes import Level
from vqprior.runtime.randomness import hash64
from vqprior.sampling import noise, self_check
from vqprior.sampling.choice import Choice, Sampling
from vqprior.stage2_prior.gated_pixelcnn.cache import CachedPixelCNN
from vqprior.stage2_prior.gated_pixelcnn.model import PixelCNN
from vqprior.stage2_prior.priors import PRIORS

EACH = dict(guidance=[1.0, 2.0, 0.0], temperature=[1.0, 0.5, 1.3], top_k=[0, 3, 5], top_p=[1.0, 0.9, 0.8])
MASK = np.arange(16)[:, None].repeat(20, 1) > 7


@pytest.fixture(autouse=True)
def first_use() -> Iterator[None]:
    """Each test meets its devices for the first time."""
    for check in (self_check.hashes, self_check.caches):
        check.cache_clear()
    yield
    for check in (self_check.hashes, self_check.caches):
        check.cache_clear()


def generator_on(kind: str, size: tuple[int, int] = (16, 20), **options: object) -> Generator:
    generator = tiny_generator(size=size, **options)
    for network in (generator.networks.vqvae, generator.networks.priors[0]):
        network.to(f"{kind}:0")
    return generator


def everything(generator: Generator) -> list[np.ndarray]:
    """What a generator gives, under every option."""
    images = generator.sample(5, labels=["a", "b", "c", "a", "b"], seed=2, batch_size=2)
    codes = generator.encode(images)
    completed = generator.complete(
        images[0], MASK, n=2, draws=3, labels="a", seed=1, guidance=[1.0, 2.0, 1.0], batch_size=2
    )
    return [
        images,
        codes,
        generator.sample(labels=["a", "b", 2], **EACH),
        generator.sample(4, guidance=2.5, temperature=0.8, top_k=4, top_p=0.9),
        generator.decode(codes),
        generator.reconstruct(images),
        generator.log2_prob(images, "b", batch_size=3),
        generator.log2_prob(codes),
        generator.posterior(codes),
        generator.classify(images),
        *completed,
    ]


@pytest.fixture(scope="module")
def on_cpu() -> list[np.ndarray]:
    return everything(tiny_generator())


def same(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_every_option_gives_what_the_cpu_gives_and_nothing_is_said(kind, on_cpu, capsys):
    with pretend(kind):
        found = everything(generator_on(kind))
    assert same(found, on_cpu)
    assert capsys.readouterr().out == ""


@contextmanager
def in_double_precision() -> Iterator[None]:
    """Tensors of no type are of fp64."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("prior", PRIORS)
def test_what_a_caller_has_set_around_a_call_changes_nothing(prior):
    """Autocast, another device and another type for new tensors, as training code and notebooks have them."""
    generator = tiny_generator(stage2=settings(prior, label_dropout=0.1))
    images = generator.sample(3)
    scored = lambda: generator.score(images, generator.usual(pictures=images), restorations=1).restorations
    expected = [*everything(generator), scored()]
    elsewhere = torch.autocast("cpu", torch.bfloat16), torch.device("meta"), in_double_precision()
    for around in elsewhere:
        with around:
            found = [*everything(generator), scored()]
        near = [np.allclose(a, b, atol=1e-3) for a, b in zip(found, expected, strict=True)]
        assert all(near), around  # likelihoods are rounded otherwise where tensors of fp64 take part


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_row_and_a_code_wait_for_nothing(kind, prior):
    """However large the map: its codes are read at the end, once."""

    def waits(size: tuple[int, int]) -> dict[str, int]:
        with pretend(kind) as gpu:
            generator = generator_on(kind, size, stage2=settings(prior))
            sampling = Sampling(choice=Choice(guidance=2.0), batch_size=2)
            known = torch.full((2, size[0] // 4, size[1] // 4), -1)
            numbers, labels = torch.arange(2), torch.tensor([0, 1])
            generator.networks.codes(numbers, labels, sampling, (known,))
            gpu.reset()
            generator.networks.codes(numbers, labels, sampling, (known,))
            return dict(gpu.waits)

    few, many = waits((8, 8)), waits((24, 20))
    assert few == many
    # a Mac waits for images, labels, and what is known
    assert sum(many.values()) <= (0 if kind == "cuda" else 5)


def spoilt_hash(*parts: object, **options: object) -> torch.Tensor:
    """What a device without 64 bits might give; right on the CPU."""
    bits = hash64(*parts, **options)
    return bits.add_(1 << 40) if isinstance(bits, DeviceTensor) else bits


def spoilt_put(put: Callable) -> Callable:
    """What a device might do that leaves what is written into a view as it was."""
    return lambda cache, j, codes: put(cache, j, codes * 0 if isinstance(codes, DeviceTensor) else codes)


def test_where_whole_numbers_are_wrong_the_noise_is_that_of_the_cpu(on_cpu, capsys, monkeypatch):
    for module in (noise, self_check):
        monkeypatch.setattr(module, "hash64", spoilt_hash)
    with pretend("mps"):
        generator = generator_on("mps")
        found = everything(generator)
        device = generator.networks.device
        assert not self_check.hashes(device) and self_check.caches(device, PixelCNN)
    assert same(found, on_cpu)
    assert capsys.readouterr().out.count("the noise is made on the CPU") == 1


def test_the_spoilt_hash_would_be_seen(on_cpu, monkeypatch):
    monkeypatch.setattr(noise, "hash64", spoilt_hash)
    with pretend("mps"):
        assert not np.array_equal(
            generator_on("mps").sample(5, labels=["a", "b", "c", "a", "b"], seed=2, batch_size=2), on_cpu[0]
        )


def test_where_the_cache_is_wrong_each_code_takes_a_full_forward(on_cpu, capsys, monkeypatch):
    monkeypatch.setattr(CachedPixelCNN, "put", spoilt_put(CachedPixelCNN.put))
    with pretend("mps"):
        generator = generator_on("mps")
        found = everything(generator)
        device = generator.networks.device
        assert not self_check.caches(device, PixelCNN) and self_check.hashes(device)
    assert same(found, on_cpu)
    assert capsys.readouterr().out.count("each code takes a full forward") == 1


@pytest.mark.parametrize("kind", PRIORS)
def test_looked_at_is_the_very_kind_that_samples(kind, capsys, monkeypatch):
    """Another kind's cache may be wrong."""
    small = PRIORS[kind](self_check.SMALL, Level(8, 4, 4), 2)
    spoilt = type(small.cache(torch.tensor([0]), maps=1))
    monkeypatch.setattr(spoilt, "put", spoilt_put(spoilt.put))
    with pretend("mps"):
        trusted = {
            name for name, of_kind in PRIORS.items() if self_check.caches(torch.device("mps:0"), of_kind)
        }
    assert trusted == {*PRIORS} - {kind}
    assert capsys.readouterr().out.count("each code takes a full forward") == 1


def test_the_checks_leave_chance_as_it_was_and_take_no_device_but_a_doubted_one():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with pretend("mps"):
        device = torch.device("mps:0")
        assert self_check.hashes(device) and all(self_check.caches(device, kind) for kind in PRIORS.values())
    assert torch.equal(torch.rand(2), expected)
    with pretend("cuda") as gpu:
        device = torch.device("cuda:0")
        assert self_check.hashes(device) and all(self_check.caches(device, kind) for kind in PRIORS.values())
        assert not gpu.operations
