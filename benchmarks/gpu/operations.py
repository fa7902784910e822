"""Operations and waits of one training step, counted on the pretend CUDA device of
`tests/pretend_device.py`.

Neither depends on the width of a network, the size of its maps or the batch: these are small here, and the
number of layers, the options and the precision are the preset's. Counted are the operations that torch
dispatches, without views and allocations; some are several kernels (a convolution's backward is three)."""

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu.steps import CLASSES, PRESETS, Enough, after_each_step, config_of, prepare
from tests.pretend_device import PretendDevice, pretend
from vqprior.configs import Config

SMALL = (
    "--data.size",
    "16",
    "16",
    "--data.margin",
    "0",
    "--data.crop",
    "0",
    "--inference_batch",
    "4",
    "--data.workers",
    "0",
)
SMALL_1 = (
    "--stage1.K",
    "8",
    "--stage1.D",
    "4",
    "--stage1.width",
    "8",
    "--stage1.block_width",
    "4",
    "--stage1.batch_size",
    "4",
)
SMALL_2 = ("--stage2.channels", "4", "--stage2.gated_pixelcnn.head", "4", "--stage2.batch_size", "4")
WARM_UP = 3  # steps that are not counted: the optimizer makes its moments in the first one
COUNTED = 4  # steps that are


class Counts(NamedTuple):
    """What a step does, a mean over several steps."""

    waits: dict[str, float]  # by reason and line
    operations: dict[str, float]  # by name


def counted_steps(train: Callable[[Config], None], config: Config, kind: str = "cuda") -> Counts:
    """Run a training loop for some steps on the pretend device, and count."""
    with pretend(kind) as gpu, after_each_step(_Counter(gpu)) as seen:
        train(config)
    mean = lambda counter: {name: count / COUNTED for name, count in Counter(counter).most_common()}
    return Counts(mean(seen.waits), mean(seen.operations))


class _Counter:
    """Forgets the steps of the warm-up, and leaves after those that are counted."""

    def __init__(self, gpu: PretendDevice):
        self.gpu, self.steps = gpu, 0
        self.waits: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()

    def __call__(self) -> None:
        self.steps += 1
        if self.steps == WARM_UP:
            self.gpu.reset()
        if self.steps == WARM_UP + COUNTED:
            self.waits, self.operations = Counter(self.gpu.waits), Counter(self.gpu.operations)
            raise Enough


def count(preset: str, stage: str, *flags: str) -> Counts:
    """The counts of a stage of a preset, with flags besides."""
    config = config_of(preset, *SMALL, *SMALL_1, *SMALL_2, *flags)
    with tempfile.TemporaryDirectory() as folder:
        train = prepare(Path(folder), config, stage, min(CLASSES[preset], 2), pictures=48)
        return counted_steps(train, config)


def table(presets: tuple[str, ...] = PRESETS) -> list[dict[str, Any]]:
    """A row for each stage of each preset."""
    rows = []
    for preset in presets:
        for stage in ("stage1", "stage2"):
            counts = count(preset, stage)
            rows.append({"preset": preset, "stage": stage, **counts._asdict()})
    return rows


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The table, and where the host waits."""
    lines = [
        "| preset | stage | operations a step | waits a step | where the host waits |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        places = ", ".join(f"{place} ({times:g})" for place, times in row["waits"].items()) or "nowhere"
        totals = sum(row["operations"].values()), sum(row["waits"].values())
        lines.append(
            f"| {row['preset']} | {row['stage'][-1]} | {totals[0]:,.0f} | {totals[1]:g} | {places} |"
        )
    return "\n".join(lines)
