"""What one visitor looks at, and whose turn it is to change it."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition
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
        """Wait for all turns that were taken before, and have those taken later wait."""
        with self._changed:
            before = self._taken
            self._taken += 1
            self._changed.wait_for(lambda: self._ended == before)
        try:
            yield
        finally:
            with self._changed:
                self._ended += 1
                self._changed.notify_all()

    @property
    def is_waited_for(self) -> bool:
        """Whether the visitor has begun something else since this turn began."""
        return self._taken > self._ended + 1

    def until_waited_for(self, steps: Iterator[Step]) -> Iterator[Step]:
        """The steps up to that."""
        for step in steps:
            if self.is_waited_for:
                return
            yield step
