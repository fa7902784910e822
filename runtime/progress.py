"""What the terminal shows of work that takes a while."""

import time
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def bar(items: Iterable[Item], name: str, *, unit: str = "it", active: bool = True) -> Iterable[Item]:
    """The items in turn, under a bar that goes when all are done.

    None where there is no terminal, or where it takes less than a second.

    Args:
        active: on the main process, which alone shows it.
    """
    hidden = None if active else True  # None: where there is no terminal
    return tqdm(items, desc=name, unit=unit, disable=hidden, leave=False, delay=1.0)


class Progress:
    """A bar on the main process with the loss, images/s over the last interval and the time left."""

    def __init__(self, name: str, *, start: int, stop: int, batch_size: int, active: bool):
        self.bar = tqdm(
            initial=start, total=stop, desc=name, unit="step", disable=not active, mininterval=1.0
        )
        self.batch_size, self.steps, self.since = batch_size, 0, time.perf_counter()

    def advance(self) -> None:
        """One step is done."""
        self.steps += 1
        self.bar.update()

    def images_per_second(self) -> float:
        """Images of all processes a second since the last call."""
        now = time.perf_counter()
        rate = self.steps * self.batch_size / max(now - self.since, 1e-9)
        self.steps, self.since = 0, now
        return rate

    def show(self, values: dict[str, Any]) -> None:
        """Put values behind the bar."""
        self.bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()})

    def say(self, text: str) -> None:
        """Print a line without breaking the bar; nothing on other processes than the main one."""
        if not self.bar.disable:
            self.bar.write(text)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.close()
