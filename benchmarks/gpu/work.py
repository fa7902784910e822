"""Arithmetic of training, counted without a GPU: multiplications and additions of forward and backward, by
torch's flop counter on fake tensors, times the preset's batch and steps. Of several levels of codes each has
a prior. What a card makes of it is an assumption: `SHARE` of the peak that its maker names."""

from collections.abc import Sequence
from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.memory import Stage, stages_of
from benchmarks.gpu.steps import CLASSES, MADE_UP, config_of
from vqprior import configs

SHARE = 0.25  # of the peak, assumed; networks of this size reach less where launches bound the step
PEAK = 312.0  # TFLOP/s of an A100 in bf16
COUNTED = 2  # images


def flops(preset: str, stage: Stage) -> float:
    """Of an image, forward and backward."""
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        _, loss = stage.build(config_of(preset), COUNTED, CLASSES[preset])
        loss().backward()
    return counter.get_total_flops() / COUNTED


def row(preset: str, stage: Stage) -> dict[str, Any]:
    """What there is to say of a stage of a preset."""
    training = stage.settings(configs.parse(configs.find_preset(preset), MADE_UP))
    image = flops(preset, stage)
    seconds = image * training.batch_size / (SHARE * PEAK * 1e12)
    return {
        "preset": preset,
        "stage": str(stage),
        "gflop_an_image": image / 1e9,
        "batch": training.batch_size,
        "steps": training.steps,
        "assumed_steps_per_second": 1 / seconds,
        "assumed_hours": seconds * training.steps / 3600,
    }


def table(presets: Sequence[str] = tuple(CLASSES)) -> list[dict[str, Any]]:
    """A row for each stage of each preset."""
    return [row(preset, stage) for preset in presets for stage in stages_of(config_of(preset))]


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    lines = [
        "| preset | stage | GFLOP an image | batch | steps | steps/s at most, one card | hours at least |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        counted = f"{row['gflop_an_image']:.2f} | {row['batch']} | {row['steps']:,}"
        hours = row["assumed_hours"]
        assumed = f"{row['assumed_steps_per_second']:.3g} | {f'{hours:.1f}' if hours >= 0.1 else '< 0.1'}"
        lines.append(f"| {row['preset']} | {row['stage']} | {counted} | {assumed} |")
    return "\n".join(lines)
