"""Checkpoints written while training goes on: the loop waits for a copy of the tensors, not for the disk."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import checkpoint
from .checkpoint import Tensors
from .processes import is_main, on_main

# One for the whole process, so that no two writes ever meet. However Python ends, it first waits for the one
# in flight.
_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")


def snapshot(tensors: dict[str, Tensors]) -> dict[str, Tensors]:
    """Copies on the CPU that no later step changes; from a GPU into pinned memory, with one wait for all of
    them."""

    def copy(value: Tensor) -> Tensor:
        return value.detach().to("cpu", non_blocking=True, copy=True, memory_format=torch.contiguous_format)

    copies = {
        file: {name: copy(value) for name, value in content.items()} for file, content in tensors.items()
    }
    if torch.accelerator.is_available():
        devices = {value.device for content in tensors.values() for value in content.values()}
        for device in devices - {torch.device("cpu")}:
            torch.accelerator.synchronize(device)
    return copies


def finish() -> None:
    """Return once a checkpoint in flight is on the disk; none can be written after that. For the end of the
    process."""
    _thread.shutdown(wait=True)


class Writer:
    """Writes the checkpoints of one stage, one at a time; all processes call it, and the main one writes.

    Args:
        folder: of the stage's checkpoints.
        keep: how many of the latest to keep, besides the best one.
    """

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep
        self.pending: Future[None] | None = None

    def save(self, step: int, tensors: dict[str, Tensors], meta: dict[str, Any], score: float | None) -> None:
        """Begin to write a checkpoint (see `checkpoint.save`); waits for the one before.

        Raises:
            UserError: the one before could not be written.
        """
        self.finish()
        if is_main():
            self.pending = _thread.submit(self._write, step, snapshot(tensors), meta, score)

    def finish(self) -> None:
        """Return once all is on the disk.

        Raises:
            UserError: it could not be written; the same on all processes.
        """
        pending, self.pending = self.pending, None

        def written() -> None:
            if pending is not None:
                pending.result()

        on_main(written)

    def _write(
        self, step: int, tensors: dict[str, Tensors], meta: dict[str, Any], score: float | None
    ) -> None:
        checkpoint.save(self.folder, step, tensors, meta, score)
        checkpoint.prune(self.folder, self.keep)
