"""The plots of a report, as SVG in the colours of the page."""

import io
from collections.abc import Callable
from functools import partial
from typing import Any

from vqprior.runtime.run_dir import RunDir

INK = "#010203"  # a colour that matplotlib draws with, and that the page replaces by its own
STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.hashsalt": "vqprior",
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
CURVES = {
    "stage1": ("stage1", "mean squared error", {"train/mse": "train", "validation/mse": "validation"}),
    "perplexity": ("stage1", "codebook perplexity", {"validation/perplexity": "validation"}),
    "stage2": (
        "stage2",
        "bits/code",
        {
            "train/bits_per_code": "train (batches, with dropout)",
            "train/bits_per_code_evaluated": "train",
            "validation/bits_per_code": "validation",
        },
    ),
}
"""Plots by name: the stage, what the axis says, and the scalars with their names in the legend."""
Curves = dict[str, tuple[list[int], list[float]]]
"""Steps and values, by their names in the legend."""


def plots(run: RunDir, metrics: dict[str, Any]) -> dict[str, str]:
    """The plots of a run, by name: of those curves and figures that there are."""
    drawn: dict[str, str] = {}
    for name, (stage, title, tags) in CURVES.items():
        if curves := _curves(run, stage, tags):
            drawn[name] = _svg(partial(_draw_curves, curves=curves, title=title))
    if of_levels := _of_levels(metrics.get("stage1", {}), "code_counts"):
        drawn["usage"] = _svg(*(partial(_draw_usage, counts=counts) for counts in of_levels))
    if of_levels := _of_levels(metrics.get("stage2", {}), "bits_by_position"):
        drawn["heat"] = _svg(*(partial(_draw_heat, bits=bits) for bits in of_levels), width=4.2)
    return drawn


def _of_levels(figures: dict[str, Any], name: str) -> list[Any]:
    """A figure of each level, coarsest first, of those that have it."""
    levels = figures.get("levels", [figures])
    return [level[name] for level in levels if name in level]


def _svg(*panels: Callable[[Any], None], width: float = 5.2, height: float = 2.8) -> str:
    """What functions draw on axes, one above the other, as an <svg> element."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height * len(panels)), layout="constrained")
        for draw, axes in zip(panels, figure.subplots(len(panels), squeeze=False).flat, strict=True):
            draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def _curves(run: RunDir, stage: str, tags: dict[str, str]) -> Curves:
    """Scalars in TensorBoard's files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not (run.tensorboard / stage).is_dir():
        return {}
    log = EventAccumulator(str(run.tensorboard / stage), size_guidance={"scalars": 500}).Reload()
    there = set(log.Tags()["scalars"])
    points = {label: log.Scalars(tag) for tag, label in tags.items() if tag in there}
    steps_and_values = lambda events: ([event.step for event in events], [event.value for event in events])
    return {label: steps_and_values(events) for label, events in points.items()}


def _draw_curves(axes: Any, curves: Curves, title: str) -> None:
    for index, (label, (steps, values)) in enumerate(curves.items()):
        axes.plot(steps, values, label=label, linewidth=1 if len(steps) > 30 else 1.8, color=f"C{index}")
    lowest = min(min(values) for _, values in curves.values())
    highest = max(max(values) for _, values in curves.values())
    if highest > 20 * lowest > 0:
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel(title)
    axes.legend()


def _draw_usage(axes: Any, counts: list[int]) -> None:
    total = max(sum(counts), 1)
    used = sum(count > 0 for count in counts)
    axes.bar(range(len(counts)), sorted((count / total for count in counts), reverse=True), width=1.0)
    axes.axhline(1 / len(counts), color=INK, linewidth=0.8, linestyle="--")
    axes.set_xlabel(f"the {used} codes that occur, by rank; dashed: all alike")
    axes.set_ylabel("share of all places")


def _draw_heat(axes: Any, bits: list[list[float]]) -> None:
    picture = axes.imshow(bits, cmap="viridis", vmin=0)
    axes.figure.colorbar(picture, label="bits")
    axes.set_xticks([])
    axes.set_yticks([])
