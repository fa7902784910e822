"""The plots of a report, as SVG in the colours of the page."""

import io
from collections.abc import Callable
from functools import cache, partial
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
    "stage1": (
        "mean squared error",
        {"train": ("", "stage1/mse"), "validation": ("validation", "stage1/mse")},
    ),
    "perplexity": ("codebook perplexity", {"validation": ("validation", "stage1_codes/perplexity")}),
    "stage2": (
        "bits/code",
        {
            "train (batches, with dropout)": ("", "stage2_loss/bits_per_code"),
            "train": ("", "stage2/bits_per_code"),
            "validation": ("validation", "stage2/bits_per_code"),
        },
    ),
}
"""Plots by name: what the axis says, and by its name in the legend each scalar, as folder and tag."""
Curves = dict[str, tuple[list[int], list[float]]]
"""Steps and values, by their names in the legend."""
Scalars = dict[str, dict[int, float]]
"""Values by tag and step."""


def plots(run: RunDir, metrics: dict[str, Any]) -> dict[str, str]:
    """The plots of a run, by name: of those curves and figures that there are."""
    drawn: dict[str, str] = {}
    logs = cache(partial(scalars, run))
    for name, (title, sources) in CURVES.items():
        if curves := _curves(logs, sources):
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


def _curves(read: Callable[[str], Scalars], sources: dict[str, tuple[str, str]]) -> Curves:
    """The curves that there are."""
    found: Curves = {}
    for label, (folder, tag) in sources.items():
        if points := read(folder).get(tag):
            found[label] = ([*sorted(points)], [points[step] for step in sorted(points)])
    return found


def scalars(run: RunDir, folder: str) -> Scalars:
    """The scalars in TensorBoard's files in a folder of the run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not (run.path / folder).is_dir():
        return {}
    log = EventAccumulator(str(run.path / folder), size_guidance={"scalars": 500}).Reload()
    return {tag: {event.step: event.value for event in log.Scalars(tag)} for tag in log.Tags()["scalars"]}


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
