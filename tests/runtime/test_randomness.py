import pytest
import torch

from tests.pretend_device import pretend
from vqprior.runtime.randomness import generator, hash64, share_of, uniform


def test_hash_is_splitmix64():
    """The first outputs of the published generator from the seeds 0 and 0x9E3779B97F4A7C15 (its second
    state)."""
    assert int(hash64(0)) % 2**64 == 0xE220A8397B1DCDAF
    assert int(hash64(1)) % 2**64 == 0x6E789E6AA1B965F4


def test_hash_depends_on_every_part_and_its_place():
    values = {int(hash64(*parts)) for parts in ((1, 2), (2, 1), (1, 2, 0), (1,), (1, 3), (0, 1, 2))}
    assert len(values) == 6


def test_hash_broadcasts_like_one_at_a_time():
    images, places = torch.arange(3), torch.arange(5)
    table = hash64(hash64(7, images)[:, None], places)
    assert table.shape == (3, 5)
    assert table[2, 4] == hash64(hash64(7, torch.tensor(2)), torch.tensor(4))


def test_a_hash_goes_on_after_another():
    images, places = torch.arange(3)[:, None], torch.arange(5)
    assert torch.equal(hash64(places, after=hash64(7, images)), hash64(7, images, places))
    buffers = torch.empty(3, 5, dtype=torch.int64), torch.empty(3, 5, dtype=torch.int64)
    hashed = hash64(7, images)
    assert torch.equal(hash64(places, after=hashed, buffers=buffers), hash64(7, images, places))
    assert torch.equal(hashed, hash64(7, images))  # and what it goes on from stays


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_device_hashes_what_the_cpu_hashes(kind):
    """On CUDA without a wait: numbers of the CPU meet its tensors as they are."""
    expected = uniform(hash64(7, torch.arange(3)[:, None], 2, torch.arange(5)))
    with pretend(kind) as gpu:
        parts = torch.arange(3, device=gpu.device)[:, None], torch.arange(5, device=gpu.device)
        gpu.reset()
        found = uniform(hash64(7, parts[0], 2, parts[1]))
        assert kind == "mps" or not gpu.waits
        assert torch.equal(found.cpu(), expected)


def test_uniform_is_uniform_and_never_0_or_1():
    u = uniform(hash64(5, torch.arange(200_000)))
    assert u.min() > 0 and u.max() < 1
    counts = torch.histc(u, bins=100, min=0, max=1)
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert chi_square < 149  # 99 degrees of freedom: exceeded once in 1000 seeds
    extremes = torch.tensor([0, -1])  # the smallest and the largest 64 bits
    assert uniform(extremes).min() > 0 and uniform(extremes).max() < 1


def test_neighbouring_seeds_are_uncorrelated():
    a, b = (uniform(hash64(seed, torch.arange(50_000))) for seed in (0, 1))
    assert torch.corrcoef(torch.stack([a, b]))[0, 1].abs() < 0.02


def test_generators_and_shares_are_functions_of_their_arguments():
    assert torch.equal(torch.rand(4, generator=generator(1, 2)), torch.rand(4, generator=generator(1, 2)))
    assert not torch.equal(torch.rand(4, generator=generator(1, 2)), torch.rand(4, generator=generator(1, 3)))
    assert share_of("cat/1.jpg") == share_of("cat/1.jpg") != share_of("cat/2.jpg")
    assert 0.45 < sum(share_of(str(i)) for i in range(2000)) / 2000 < 0.55
