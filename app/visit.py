"""What one visitor looks at, and whose turn it is to change it."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, main_thread
from typing import Any, Self, TypeVar

Step = TypeVar("Step")


class Visit:
    """The first value of a `gr.State`, which each visitor gets a copy of: a new one of their own.

    Gradio's queues are shared by all visitors, and an event that it cancels goes on for a while. Here each
    visitor's actions come one after the other, in the order in which they were begun, and none waits for
    those of another visitor.
    """

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
            while not self._changed.wait_for(lambda: self._ended == before, timeout=0.5):
                if not main_thread().is_alive():
                    raise RuntimeError("the program ends")
        try:
            yield
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
