"""Work on many pictures in threads: Pillow and the disk let them run side by side."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from tqdm import tqdm

from ..progress import opened

BAR = 5000  # pictures from which on a bar shows how far the work is
TASK = 64  # pictures of one task at most: a future for each of a million would take gigabytes
AHEAD = 4  # tasks for each thread that wait or are done and not yet taken

Result = TypeVar("Result")


@cache
def pool(workers: int) -> ThreadPoolExecutor:
    """The threads of this process, at least one and at most as many as there are cores."""
    return ThreadPoolExecutor(_threads(workers))


def _threads(workers: int) -> int:
    return max(1, min(workers, os.cpu_count() or 1))


def in_threads(
    work: Callable[[int], Result],
    count: int,
    workers: int,
    *,
    name: str = "",
    quiet: bool = True,
) -> Iterator[Result]:
    """`work` of the indices 0 to count-1, in their order, with a bar under a name where there are many."""
    threads = _threads(workers)
    size = max(1, min(TASK, count // (AHEAD * threads)))
    waiting: deque[Future[list[Result]]] = deque()
    bar = opened(desc=name, total=count, disable=quiet or count < BAR, leave=False)
    with bar:
        for start in range(0, count, size):
            indices = range(start, min(start + size, count))
            waiting.append(pool(workers).submit(lambda those: [work(index) for index in those], indices))
            if len(waiting) >= AHEAD * threads:
                yield from _taken(waiting.popleft(), bar)
        while waiting:
            yield from _taken(waiting.popleft(), bar)


def _taken(done: "Future[list[Result]]", bar: tqdm) -> list[Result]:
    results = done.result()
    bar.update(len(results))
    return results
