"""Batches on their way to the device that computes with them."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from .optimizer import runs_ahead
from .transfer import onto

SHARE = 8  # a split may take one part in so many of a device's memory

Batch = TypeVar("Batch", bound=tuple[Tensor | None, ...])


def has_room(device: torch.device, size: int) -> bool:
    """Whether a split of so many bytes is best kept on the device: on CUDA, where it takes an eighth of it at
    most."""
    return runs_ahead(device) and size <= torch.cuda.get_device_properties(device).total_memory // SHARE


def fed(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches, tuples of tensors and None, on the device.

    On CUDA what lies on the host is copied on a stream of its own, as soon as the step before is queued:
    while that is computed.
    """
    if not runs_ahead(device):
        for batch in batches:
            yield _there(batch, device)
        return
    stream = torch.cuda.Stream(device)
    for batch in batches:
        with torch.cuda.stream(stream):
            there = _there(batch, device)
        here = torch.cuda.current_stream(device)
        here.wait_stream(stream)
        for tensor in there:
            if tensor is not None:
                tensor.record_stream(here)  # or its memory could be taken while the step still reads it
        yield there


def _there(batch: Batch, device: torch.device) -> Batch:
    tensors = (None if tensor is None else onto(tensor, device) for tensor in batch)
    return type(batch)(*tensors) if hasattr(batch, "_fields") else tuple(tensors)
