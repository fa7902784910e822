"""Curves, pictures and text for TensorBoard, written by the main process only."""

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

_say_error_of_thread = threading.excepthook


def _say_other_error_of_thread(error: threading.ExceptHookArgs) -> None:
    """No traceback where TensorBoard's own thread finds the disk full: `Tracker.flush` says so in words."""
    if not (isinstance(error.exc_value, OSError) and type(error.thread).__module__.startswith("tensorboard")):
        _say_error_of_thread(error)


def _wait_for_next_second(folder: Path) -> None:
    """TensorBoard reads event files in the order of their names, which hold whole seconds, then the host and
    the process: one that is begun in the same second as that of a killed run could come before it."""
    begun = [path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*")]
    newest = max((int(seconds) for seconds in begun if seconds.isdigit()), default=0)
    if time.time() < newest + 1 <= time.time() + 2:
        time.sleep(newest + 1 - time.time())


class Tracker:
    """Writes one event folder; on other processes than the main one it does nothing.

    Only `flush` and `close` fail on a full disk, so that a loop can take the error where all processes hear
    of it.

    Args:
        folder: of the event files; each stage has its own, so that a purge touches no other curve.
        step: the step that training goes on after; what a killed run wrote beyond it is purged.
        active: whether this is the main process.
    """

    def __init__(self, folder: Path, *, step: int, active: bool):
        self.writer = None
        if active:
            from torch.utils.tensorboard import SummaryWriter

            threading.excepthook = _say_other_error_of_thread
            _wait_for_next_second(folder)
            self.writer = SummaryWriter(str(folder), purge_step=step + 1)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """One point of each named curve."""
        for name, value in values.items():
            self._add("scalar", name, value, step)

    def picture(self, step: int, name: str, image: Tensor | np.ndarray) -> None:
        """A picture [H, W, C], uint8."""
        self._add("image", name, np.asarray(image), step, dataformats="HWC")

    def histogram(self, step: int, name: str, values: Tensor) -> None:
        """The distribution of a tensor's values."""
        self._add("histogram", name, values.cpu(), step)

    def text(self, step: int, name: str, text: str) -> None:
        """Text, shown as it is."""
        self._add("text", name, "    " + text.replace("\n", "\n    "), step)

    def _add(self, kind: str, *arguments: Any, **options: Any) -> None:
        if self.writer:
            with suppress(OSError):
                getattr(self.writer, f"add_{kind}")(*arguments, **options)

    def flush(self) -> None:
        """Write out what is buffered; called before a checkpoint, so that no curve ends before its
        checkpoint."""
        if self.writer:
            self.writer.flush()

    def close(self) -> None:
        """Write out and close the file."""
        if self.writer:
            self.writer.close()
