"""Batches on a device: there already or copied, they are those of the CPU, and nothing waits for them."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.pretend_device import pretend
from vqprior.runtime import feed, loader
from vqprior.runtime.code_maps import CodeSplit
from vqprior.runtime.data import load, transform
from vqprior.runtime.feed import fed, has_room
from vqprior.runtime.loader import CodeBatch, code_batches, image_batches

CPU, CUDA, MPS = (torch.device(kind) for kind in ("cpu", "cuda:0", "mps:0"))
HOW = dict(seed=5, batch_size=6, start=1, stop=5, part=slice(0, 6))


def compare(make, monkeypatch, *, room: bool = True, parts: int = 1) -> None:
    """What `make` gives for a GPU, there, is what it gives for the CPU.

    Nothing waits for a batch; where all lies on the GPU each of so many parts was waited for once.
    """
    kind, waits = "cuda", parts if room else 0
    expected = [*fed(make(CPU), CPU)]
    monkeypatch.setattr(loader, "has_room", lambda device, size: room and device.type == "cuda")
    device = torch.device(kind, 0)
    with pretend(kind) as gpu:
        found = [*fed(make(device), device)]
        assert sum(gpu.waits.values()) <= waits, gpu.waits
        assert len(found) == len(expected) == 4
        for batch, other in zip(found, expected, strict=True):
            for tensor, same in zip(batch, other, strict=True):
                assert tensor.device == device and torch.equal(tensor.cpu(), same)


@pytest.mark.parametrize("room", [True, False])
@pytest.mark.parametrize("settings", [{}, {"flip": True, "margin": 3}])
def test_pictures_on_a_device_are_those_of_the_cpu(tiny, monkeypatch, room, settings):
    split = load(replace(tiny.data, **settings)).train
    compare(lambda device: image_batches(split, device, **HOW), monkeypatch, room=room)


def test_streamed_pictures_are_those_of_the_cpu(tiny, monkeypatch):
    split = load(replace(tiny.data, flip=True, memory_gb=0, workers=2)).train
    compare(lambda device: image_batches(split, device, **HOW), monkeypatch, room=False)


@pytest.mark.parametrize("room", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_codes_on_a_device_are_those_of_the_cpu(monkeypatch, room, dtype):
    """The largest codes, too, whose bits are those of a negative number of 16 bits."""
    maps = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (11, 2, 3)).astype(dtype)
    maps[0, 0, 0] = np.iinfo(dtype).max
    monkeypatch.setattr("vqprior.runtime.code_maps.SHARD", 4)
    split = CodeSplit([(maps[:4],), (maps[4:8],), (maps[8:],)], torch.arange(11))
    compare(lambda device: flat(code_batches(split, device, **HOW)), monkeypatch, room=room, parts=3)


def flat(batches: Iterable[CodeBatch]) -> Iterator[tuple[torch.Tensor | None, ...]]:
    """As the training loop hands them on."""
    return ((*batch.codes, batch.labels, batch.positions) for batch in batches)


def test_codes_on_a_mac_are_copied_as_they_are_needed(monkeypatch):
    split = CodeSplit([(np.arange(44, dtype=np.uint8).reshape(11, 2, 2),)], None)
    expected = [*flat(code_batches(split, CPU, **HOW))]
    with pretend("mps"):
        batches = fed(flat(code_batches(split, MPS, **HOW)), MPS)
        for (codes, labels, _), (same, _, _) in zip(batches, expected, strict=True):
            assert labels is None and torch.equal(codes.cpu(), same)


def test_a_split_is_kept_on_a_gpu_if_it_takes_an_eighth_of_it_at_most():
    with pretend("cuda"):
        room = torch.cuda.get_device_properties(CUDA).total_memory // feed.SHARE
        assert has_room(CUDA, room) and not has_room(CUDA, room + 1)
    assert not has_room(CPU, 1) and not has_room(MPS, 1)


def test_windows_by_one_gather_are_those_cut_picture_by_picture(tiny):
    data = replace(tiny.data, size=(5, 4), margin=3, flip=True)
    images = torch.randint(256, (40, 3, 8, 7), dtype=torch.uint8)
    cut = transform.augment(images, data, 3, torch.arange(40))
    with pretend("cuda"):
        gathered = transform.augment(images.to(CUDA), data, 3, torch.arange(40)).cpu()
    assert torch.equal(gathered, cut)
    assert not torch.equal(cut[:, :, :, :4], images[:, :, :5, :4])
