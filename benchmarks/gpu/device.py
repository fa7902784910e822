"""What measurements on a device have in common: its queue, its memory, and failures that lose no others."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from vqprior.runtime.processes import device_of_process

MIB = 2**20


def synchronize() -> None:
    """Wait for all that the device was given."""
    if device_of_process().type != "cpu":
        torch.accelerator.synchronize()


def is_cuda() -> bool:
    """Whether the device of this process is one of CUDA's."""
    return device_of_process().type == "cuda"


@contextmanager
def cleared() -> Iterator[None]:
    """Around a measurement: nothing of the one before is left on the device, and the peak begins anew."""
    gc.collect()
    if is_cuda():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield


def attempted(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a measurement found, or in words why there is nothing: one that fails must not lose the others."""
    try:
        return work()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"}
