"""What one visitor looks at, and whose turn it is to change it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Semaphore, main_thread
from typing import Any, Self, TypeVar

Step = TypeVar("Step")
AT_ONCE = 4  # visitors that are served; others wait


class Visit:
    """The first value of a `gr.State`, which each visitor gets a copy of: a new one of their own.

    Gradio's queues are shared by all visitors, and an event that it cancels goes on for a while. Here each
    visitor's actions come one after the other, in the order in which they were begun, and none waits for
    those of another visitor, unless AT_ONCE are served.
    """

    _served = Semaphore(AT_ONCE)  # of all visitors

    def __init__(self) -> None:
        self.opened: Any = None
        self._taken = self._ended = 0  # turns
        self._changed = Condition()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for all turns that were taken before, and have those taken later wait.

        Raises:
            RuntimeError: the program ends meanwhile. It waits for its threads, and the turn before may never
                end: whoever went on with it is gone.
        """
        with self._changed:
            before = self._taken
            self._taken += 1
            _wait(lambda seconds: self._changed.wait_for(lambda: self._ended == before, seconds))
        try:
            _wait(lambda seconds: self._served.acquire(timeout=seconds))
            try:
                yield
            finally:
                self._served.release()
        finally:
            with self._changed:
                self._ended += 1
                self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """How many turns the visitor has begun since this one began."""
        return max(0, self._taken - self._ended - 1)

    @property
    def is_waited_for(self) -> bool:
        """Whether there is any."""
        return self.waiting > 0

    def until_waited_for(self, steps: Iterator[Step]) -> Iterator[Step]:
        """The steps up to that."""
        for step in steps:
            if self.is_waited_for:
                return
            yield step


def _wait(until: Callable[[float], bool]) -> None:
    """Wait for what a function of seconds waits for, as long as the program goes on.

    Raises:
        RuntimeError: it ends.
    """
    while not until(0.5):
        if not main_thread().is_alive():
            raise RuntimeError("the program ends")
