"""The real training loops on made-up data: speed, memory, and what kernels and waits there are in a step."""

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, supported_activities

from benchmarks.gpu.device import MIB, attempted, cleared, is_cuda, synchronize
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.steps import CLASSES, Enough, after_each_step, config_of, prepare
from vqprior.configs import Config

FEW = 4  # images of a step that is hardly any arithmetic
LOOKED_AT = 3  # steps under the profiler, and as many under torch's debug mode for waits


class Watch:
    """Called by a loop after each step; from the end of a warm-up on it counts steps.

    The warm-up is 5 steps, in which kernels are chosen and a step is recorded, or so many seconds if longer.
    """

    def __init__(self, seconds: float):
        self.seconds, self.steps, self.since = seconds, 0, -1
        self.began = time.perf_counter()

    def __call__(self) -> None:
        self.steps += 1
        if self.since < 0 and (self.steps < 5 or time.perf_counter() - self.began < self.seconds):
            return
        if self.since < 0:
            synchronize()
            self.began = time.perf_counter()
        self.since += 1
        self.after(self.since)

    def after(self, steps: int) -> None:
        """So many steps have been taken since the warm-up, 0 at its end."""


class Timed(Watch):
    """The mean seconds of a step."""

    took = 0.0

    def after(self, steps: int) -> None:
        if steps and time.perf_counter() - self.began > self.seconds:
            synchronize()
            self.took = (time.perf_counter() - self.began) / steps
            raise Enough


class LookedAt(Watch):
    """On CUDA: how long kernels run in a step, how many there are, and the waits that torch warns of."""

    def __init__(self, messages: list[warnings.WarningMessage]):
        super().__init__(seconds=0)
        kernels = {ProfilerActivity.CUDA} & supported_activities()
        self.profile = profile(activities=kernels or {ProfilerActivity.CPU})
        self.messages = messages

    def after(self, steps: int) -> None:
        if steps == 0:
            self.profile.start()
        elif steps == LOOKED_AT:
            synchronize()
            self.profile.stop()
            torch.cuda.set_sync_debug_mode("warn")
        elif steps == 2 * LOOKED_AT:
            torch.cuda.set_sync_debug_mode("default")
            raise Enough

    def figures(self) -> dict[str, Any]:
        """Means a step."""
        device = torch.autograd.DeviceType.CUDA
        rows = [row for row in self.profile.key_averages() if row.device_type == device]
        waits: dict[str, float] = {}
        for message in self.messages:
            if "called a synchronizing CUDA operation" in str(message.message):
                place = f"{Path(message.filename).name}:{message.lineno}"
                waits[place] = waits.get(place, 0) + 1 / LOOKED_AT
        return {
            "kernels_ms": sum(row.self_device_time_total for row in rows) / 1000 / LOOKED_AT,
            "kernels": sum(row.count for row in rows) / LOOKED_AT,
            "waits": waits,
        }


def with_batch(config: Config, stage: str, batch: int) -> Config:
    """The settings with another batch of a stage."""
    return replace(config, **{stage: replace(getattr(config, stage), batch_size=batch)})


def fitting(
    train: Callable[[Config], None],
    config: Config,
    stage: str,
    seconds: float,
) -> tuple[dict[str, Any], int]:
    """Figures of a loop at its batch, or at the largest half, quarter, ... that fits; and that batch."""
    batch = getattr(config, stage).batch_size
    while True:
        try:
            with cleared(), after_each_step(Timed(seconds)) as timed:
                train(with_batch(config, stage, batch))
        except torch.OutOfMemoryError:
            batch //= 2
            if not batch:
                raise
            continue
        figures = {"step_ms": 1000 * timed.took}
        if is_cuda():
            figures["allocated_mib"] = torch.cuda.max_memory_allocated() / MIB
            figures["reserved_mib"] = torch.cuda.max_memory_reserved() / MIB
        return figures, batch


def looked_at(train: Callable[[Config], None], config: Config) -> dict[str, Any]:
    """What the profiler and torch's debug mode see of a step."""
    with warnings.catch_warnings(record=True) as messages, cleared():
        warnings.simplefilter("always")
        try:
            with after_each_step(LookedAt(messages)) as watch:
                train(config)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return watch.figures()


def training(preset: str, stage: str, settings: Settings, folder: Path) -> Iterator[list[dict[str, Any]]]:
    """A row for each way to train a stage of a preset, after each measurement as far as they go."""
    base = config_of(preset, *settings.flags)
    train = prepare(folder, base, stage, CLASSES[preset], settings.pictures)
    rows = {name: {"preset": preset, "stage": stage, "way": name, "rounds": []} for name in settings.ways}
    for number in range(settings.rounds):
        for name, flags in settings.ways.items():
            row = rows[name]
            if "error" in row or (number and time.perf_counter() > settings.until):
                continue
            config = config_of(preset, *settings.flags, *flags)
            row |= attempted(lambda config=config, row=row: _one_round(train, config, stage, settings, row))
            if row["rounds"]:
                row |= _over_rounds(row)
            yield [*rows.values()]


def _one_round(
    train: Callable[[Config], None], config: Config, stage: str, settings: Settings, row: dict[str, Any]
) -> dict[str, Any]:
    """Measure once more; at the first time the batch that fits is found, and the step is looked at."""
    if "batch" in row:
        config = with_batch(config, stage, row["batch"])
    figures, batch = fitting(train, config, stage, settings.seconds)
    few, _ = fitting(train, with_batch(config, stage, min(batch, FEW)), stage, settings.seconds / 2)
    found = {"batch": batch, "rounds": [*row["rounds"], figures | {"few_ms": few["step_ms"]}]}
    if is_cuda() and not row["rounds"]:
        found["apart"] = attempted(lambda: looked_at(train, with_batch(config, stage, batch)))
    return found


def _over_rounds(row: dict[str, Any]) -> dict[str, Any]:
    """Medians over rounds, and what follows from them."""
    rounds = row["rounds"]
    medians = {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}
    medians["steps_per_second"] = 1000 / medians["step_ms"]
    medians["images_per_second"] = row["batch"] * medians["steps_per_second"]
    return medians
