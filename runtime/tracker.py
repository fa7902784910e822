"""Curves, pictures and text for TensorBoard, written by the main process only."""

from pathlib import Path

import numpy as np
from torch import Tensor


class Tracker:
    """Writes one event folder; on other processes than the main one it does nothing.

    Args:
        folder: of the event files; each stage has its own, so that a purge touches no other curve.
        step: the step that training goes on after; what a killed run wrote beyond it is purged.
        active: whether this is the main process.
    """

    def __init__(self, folder: Path, *, step: int, active: bool):
        self.writer = None
        if active:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(folder), purge_step=step + 1)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """One point of each named curve."""
        if self.writer:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: Tensor | np.ndarray) -> None:
        """A picture [H, W, C], uint8."""
        if self.writer:
            self.writer.add_image(name, np.asarray(image), step, dataformats="HWC")

    def histogram(self, step: int, name: str, values: Tensor) -> None:
        """The distribution of a tensor's values."""
        if self.writer:
            self.writer.add_histogram(name, values.cpu(), step)

    def text(self, step: int, name: str, text: str) -> None:
        """Text, shown as it is."""
        if self.writer:
            self.writer.add_text(name, "    " + text.replace("\n", "\n    "), step)

    def flush(self) -> None:
        """Write out what is buffered; called before a checkpoint, so that no curve ends before its checkpoint."""
        if self.writer:
            self.writer.flush()

    def close(self) -> None:
        """Write out and close the file."""
        if self.writer:
            self.writer.close()
