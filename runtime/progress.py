"""What the terminal shows of work that takes a while."""

import sys
import time
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

EVERY = 60.0
"""Seconds between two lines of work without a terminal, and before the first one."""


class Lines(tqdm):
    """What a bar says, in a plain line now and then: for output that is kept in a file."""

    def __init__(self, *given: Any, **settings: Any):
        words = "{desc}: {n_fmt} of {total_fmt}, {rate_fmt}, {remaining} left{postfix}"
        pace = dict(mininterval=EVERY, maxinterval=EVERY, delay=EVERY)
        super().__init__(*given, **settings | pace | dict(bar_format=words, leave=False))

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Print the line; a message would be what wipes a bar out."""
        if msg is None:
            print(self, file=self.fp, flush=True)

    @classmethod
    def write(cls, s: str, *_: Any, **__: Any) -> None:
        """Print a line of other words."""
        print(s, flush=True)


def opened(*given: Any, **settings: Any) -> tqdm:
    """A bar of tqdm's where there is a terminal, else `Lines`."""
    return (tqdm if sys.stderr.isatty() else Lines)(*given, **settings)


def done(name: str, steps: int, asked: int) -> str:
    """That a training is done, in words; also where fewer steps are asked for now."""
    return f"{name}: done, {steps} steps" + (f" (asked for now: {asked})" if asked < steps else "")


def bar(items: Iterable[Item], name: str, *, unit: str = "it", active: bool = True) -> Iterable[Item]:
    """The items in turn, under a bar that goes when all are done, and that comes after a second.

    Args:
        active: on the main process, which alone shows it.
    """
    return opened(items, desc=name, unit=unit, disable=not active, leave=False, delay=1.0)


class Progress:
    """A bar on the main process with the loss, images/s over the last interval and the time left."""

    def __init__(self, name: str, *, start: int, stop: int, batch_size: int, active: bool):
        settings = dict(desc=name, unit="step", disable=not active, mininterval=1.0)
        self.bar = opened(initial=start, total=stop, **settings)
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
        """Put values behind the bar, for when it is drawn next."""
        self.bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()}, refresh=False)

    def say(self, text: str) -> None:
        """Print a line without breaking the bar; nothing on other processes than the main one."""
        if not self.bar.disable:
            self.bar.write(text)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.close()
