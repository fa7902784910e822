"""How many maps are drawn at once where nobody says it."""

import pytest
import torch

from tests.pretend_device import MEMORY, pretend
from tests.sampling.tiny import tiny_generator
from tests.stage2_prior.every_prior import KINDS, opinionated
from vqprior.configs.errors import UserError
from vqprior.configs.schema import Sample
from vqprior.runtime.codes import Level
from vqprior.sampling import batch_size


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
        if not isinstance(part, torch.nn.Module):
            found |= tensors_of(part)
    return found


PASSING = {"gated_pixelcnn": 4 * 10 * 16, "pixelsnail": 2 * 10 * 16, "transformer": 14 * 16}
"""Numbers that a row, or a code, of the maps below makes on the way and that no cache keeps."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("levels", [1, 2])
def test_the_cache_is_counted(kind, classes, levels):
    *above, level = (Level(9, 4 * 2**up, 5 * 2**up) for up in range(2 - levels, 2))
    prior = opinionated(kind, level, classes, above, channels=16, dtype=torch.float32)
    held = []
    for maps in (2, 3):
        labels = torch.zeros(maps, dtype=torch.int64) if classes else None
        codes = tuple(torch.zeros(maps, *coarser.size, dtype=torch.int64) for coarser in above)
        held.append(sum(tensors_of(prior.cache(labels, codes, maps=maps)).values()))
    assert prior.cached_numbers() == pytest.approx(held[1] - held[0] + PASSING.get(kind, 0), rel=0.02)


@pytest.mark.parametrize(("gigabytes", "each", "expected"), [
    (80, 21e6, 512), (16, 21e6, 128), (8, 21e6, 64), (2, 21e6, 64), (80, 1e5, 1024), (24, 2e7, 256),
])  # fmt: skip
def test_a_power_of_two_whose_maps_take_at_most_a_quarter(monkeypatch, gigabytes, each, expected):
    generator = tiny_generator()
    monkeypatch.setattr(batch_size, "total_memory", lambda device: int(gigabytes * 2**30))
    monkeypatch.setattr(batch_size, "bytes_of_image", lambda *given: int(each))
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


def test_settling_all_places_at_once_counts_a_forward_and_the_noise():
    """Twice the forward where maps are guided, and 4 bytes a code and place of noise."""
    prior = opinionated("gated_pixelcnn", Level(9, 4, 5), 3, channels=16, dtype=torch.float32)
    once = batch_size.bytes_of_image([prior], None, "parallel")
    forward = prior.forward_numbers()
    assert once == 4 * (2 * forward + 20 * 9) + 4 * forward  # and the one that measures
