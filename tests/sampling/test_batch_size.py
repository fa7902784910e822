"""How many maps are drawn at once where nobody says it."""

import pytest
import torch

from tests.pretend_device import MEMORY, pretend
from tests.sampling.tiny import tiny_generator
from vqprior.configs.errors import UserError
from vqprior.configs.schema import GatedPixelCNN, Sample, Stage2
from vqprior.runtime.codes import Level
from vqprior.sampling import batch_size
from vqprior.stage2_prior.gated_pixelcnn.model import PixelCNN


def tensors_of(thing: object) -> dict[int, int]:
    """Numbers of each memory that an object holds, by where it is."""
    if isinstance(thing, torch.Tensor):
        return {thing.untyped_storage().data_ptr(): thing.untyped_storage().nbytes() // thing.element_size()}
    parts = (
        thing
        if isinstance(thing, (list, tuple))
        else vars(thing).values()
        if hasattr(thing, "__dict__")
        else ()
    )
    found: dict[int, int] = {}
    for part in parts:
        if not isinstance(part, PixelCNN):
            found |= tensors_of(part)
    return found


@pytest.mark.parametrize("classes", [0, 3])
def test_the_cache_is_counted(classes):
    prior = PixelCNN(
        Stage2(channels=10, layers=3, gated_pixelcnn=GatedPixelCNN(kernel=5, head=12)),
        Level(9, 5, 7),
        classes,
    ).eval()
    held = []
    for maps in (2, 3):
        labels = torch.zeros(maps, dtype=torch.int64) if classes else None
        held.append(sum(tensors_of(prior.cache(labels, maps=maps)).values()))
    passing = 4 * 7 * 10  # a vertical stack's output, and its copy
    assert prior.cached_numbers() == pytest.approx(held[1] - held[0] + passing, rel=0.02)


@pytest.mark.parametrize(("gigabytes", "each", "expected"), [
    (80, 21e6, 512), (16, 21e6, 128), (8, 21e6, 64), (2, 21e6, 64), (80, 1e5, 1024), (24, 2e7, 256),
])  # fmt: skip
def test_a_power_of_two_whose_maps_take_at_most_a_quarter(monkeypatch, gigabytes, each, expected):
    generator = tiny_generator()
    monkeypatch.setattr(batch_size, "total_memory", lambda device: int(gigabytes * 2**30))
    monkeypatch.setattr(batch_size, "bytes_of_image", lambda priors, vqvae: int(each))
    assert batch_size.automatic(generator.networks.priors, generator.networks.vqvae) == expected


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_the_memory_of_a_device(kind):
    with pretend(kind):
        assert batch_size.total_memory(torch.device(kind, 0)) == MEMORY


def test_auto_is_64_on_a_cpu_and_a_number_is_that_number():
    generator = tiny_generator()
    assert generator.networks.batch_size_of(Sample()) == 64
    assert generator.networks.batch_size_of(Sample(batch_size=3)) == 3
    with pytest.raises(UserError, match="at least 1, or auto"):
        generator.sample(2, batch_size=0)
