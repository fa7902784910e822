"""Batch t of a run is a function of (seed, t) alone: of no state, of no number of processes.

The order of a run is one endless sequence: a shuffle of the split, then another, and so on. Batch t is its
places t*B to (t+1)*B, of which each process takes an equal slice. To resume at step t is to start counting at
t.
"""

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vqprior.configs.errors import UserError

from .code_maps import CodeSplit
from .codes import Codes
from .data import Split
from .data.transform import augment
from .feed import has_room
from .interrupt import ignore_in_worker
from .randomness import Stream, generator
from .transfer import onto

PIPED = 2**19  # bytes of a batch that goes through a pipe: to share memory takes longer, a millisecond

_Made = Tensor | np.ndarray | UserError  # what a worker process makes of a batch


class Batch(NamedTuple):
    """This process's slice of a global batch of pictures."""

    images: Tensor  # [n, C, H, W] uint8, augmented
    labels: Tensor | None  # [n] int64


class CodeBatch(NamedTuple):
    """This process's slice of a global batch of code maps."""

    codes: Codes  # a level [n, h, w] int64
    labels: Tensor | None  # [n] int64
    positions: Tensor  # [n] int64, their places in the order of the run


@dataclass(frozen=True)
class Share:
    """Which process of how many this is."""

    rank: int = 0
    processes: int = 1

    def slice(self, batch_size: int, accumulate: int = 1) -> slice:
        """The part of a global batch that is this process's.

        Raises:
            UserError: the batch cannot be divided evenly.
        """
        parts = self.processes * accumulate
        if batch_size % parts:
            raise UserError(
                f"batch_size is {batch_size}, the global batch of a step; {self.processes} processes with "
                f"{accumulate} passes each divide only multiples of {parts}: take "
                f"{-(-batch_size // parts) * parts}"
            )
        size = batch_size // self.processes
        return slice(self.rank * size, (self.rank + 1) * size)


class Order:
    """The endless shuffled order of N items."""

    def __init__(self, items: int, seed: int):
        self.items, self.seed = items, seed
        self.epoch, self.shuffle = -1, torch.empty(0, dtype=torch.int64)

    def at(self, positions: Tensor) -> Tensor:
        """Which items [n] stand at these places [n] of the order, int64."""
        items = torch.empty_like(positions)
        for epoch in (positions // self.items).unique().tolist():
            if epoch != self.epoch:
                chance = generator(self.seed, Stream.ORDER, epoch)
                self.epoch, self.shuffle = epoch, torch.randperm(self.items, generator=chance)
            there = positions // self.items == epoch
            items[there] = self.shuffle[positions[there] % self.items]
        return items


def batch_positions(step: int, batch_size: int, part: slice) -> Tensor:
    """The places [n] of a step's batch, or of a process's slice of it, in the order of the run."""
    return step * batch_size + torch.arange(batch_size)[part]


def image_batches(
    split: Split,
    device: torch.device,
    *,
    seed: int,
    batch_size: int,
    start: int,
    stop: int,
    part: slice,
) -> Iterator[Batch]:
    """The batches of steps `start` to `stop`, augmented, for a device (`feed.fed` brings them there).

    Pictures that are held lie there where it has room; those that are not are made by worker processes.
    """

    def places() -> Iterator[tuple[Tensor, Tensor]]:
        order = Order(len(split), seed)
        for step in range(start, stop):
            positions = batch_positions(step, batch_size, part)
            yield positions, order.at(positions)

    canvas = split.canvas
    if split.held is not None and has_room(device, split.held.nbytes):
        there = split.held.to(device)  # once, and not by way of pinned memory, which torch would keep
        canvas = lambda indices: there.index_select(0, onto(indices, device))
    streaming = split.held is None and split.data.workers > 0
    made_here = (augment(canvas(indices), split.data, seed, positions) for positions, indices in places())
    labels = split.labels
    with _streamed(split, seed, places()) if streaming else nullcontext(made_here) as batches:
        for (_, indices), images in zip(places(), batches, strict=True):
            if isinstance(images, UserError):
                raise images
            yield Batch(torch.as_tensor(images), None if labels is None else labels[indices])


def code_batches(
    split: CodeSplit,
    device: torch.device,
    *,
    seed: int,
    batch_size: int,
    start: int,
    stop: int,
    part: slice,
) -> Iterator[CodeBatch]:
    """The batches of steps `start` to `stop` for a device, where all code maps lie if it has room."""
    order = Order(len(split), seed)
    codes = split.held_on(device).codes if has_room(device, split.size) else split.codes
    for step in range(start, stop):
        positions = batch_positions(step, batch_size, part)
        indices = order.at(positions)
        yield CodeBatch(codes(indices), None if split.labels is None else split.labels[indices], positions)


@contextmanager
def _streamed(split: Split, seed: int, places: Iterator[tuple[Tensor, Tensor]]) -> Iterator[Iterator[_Made]]:
    """The batches at these places, from worker processes that end with this, and with Python at the latest.

    They heed no signal: left alone they would outlive an error in the loop, and Python would wait for them.
    """
    processes_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # which share the cores of the machine
    loader = DataLoader(
        _Batches(split, seed),
        sampler=(tuple(map(Tensor.tolist, of_batch)) for of_batch in places),  # tensors would go by files
        batch_size=None,
        num_workers=max(1, min(split.data.workers, (os.cpu_count() or 1) // processes_here)),
        prefetch_factor=4,
        collate_fn=_as_it_is,
        worker_init_fn=ignore_in_worker,
    )
    batches = iter(loader)
    atexit.register(batches._shutdown_workers)
    try:
        yield batches
    finally:
        atexit.unregister(batches._shutdown_workers)
        batches._shutdown_workers()


@dataclass(frozen=True)
class _Batches:
    """The batches of a split as torch's DataLoader indexes them."""

    split: Split
    seed: int

    def __getitem__(self, places: tuple[list[int], list[int]]) -> _Made:
        positions, indices = places
        try:
            pictures = torch.from_numpy(np.stack([self.split.read(index) for index in indices]))
        except UserError as error:  # the parent raises it: torch would put a traceback into the message
            return error
        batch = augment(pictures, self.split.data, self.seed, torch.tensor(positions))
        return batch if batch.nbytes > PIPED else batch.numpy()


def _as_it_is(batch: _Made) -> _Made:
    return batch
