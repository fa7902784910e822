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
Curves = dict[str, tuple[list[int], list[float]]]
"""Steps and values, by their names in the legend."""
Scalars = dict[str, dict[int, float]]
"""Values by tag and step."""


def curves(run: RunDir, levels: int) -> dict[str, str]:
    """The curves of a run of so many levels, by their titles: those that there are."""
    logs, drawn = cache(partial(scalars, run)), {}
    for title, (axis, sources) in _charts(levels).items():
        if found := _curves(logs, sources):
            drawn[title] = _svg(partial(_draw_curves, curves=found, title=axis))
    return drawn


def _charts(levels: int) -> dict[str, tuple[str, dict[str, tuple[str, str]]]]:
    """By the title of each chart: what its axis says, and by its name in the legend each scalar, as folder
    and tag."""
    several = levels > 1
    error = {"train": ("", "stage1/mse"), "validation": ("validation", "stage1/mse")}
    codes = [(f", level {level}", f"_{level}") if several else ("", "") for level in range(levels)]
    tag = "stage1_codes/perplexity"
    perplexity = {f"validation{words}": ("validation", tag + ending) for words, ending in codes}
    charts = {"Stage one": ("mean squared error", error), "Codebook": ("codebook perplexity", perplexity)}
    for level in range(levels):
        stage = f"stage2-{level}" if level else "stage2"
        charts["Stage two" + several * f", level {level}"] = (
            "bits/code",
            {
                "train (batches, with dropout)": ("", f"{stage}_loss/bits_per_code"),
                "train": ("", f"{stage}/bits_per_code"),
                "validation": ("validation", f"{stage}/bits_per_code"),
            },
        )
    return charts


def plots(metrics: dict[str, Any]) -> dict[str, str]:
    """The plots of figures, by name: of those that there are."""
    drawn: dict[str, str] = {}
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
    """What functions draw on axes, one a level, coarsest first and one above the other, as an <svg>
    element."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height * len(panels)), layout="constrained")
        every = figure.subplots(len(panels), squeeze=False).flat
        for level, (draw, axes) in enumerate(zip(panels, every, strict=True)):
            draw(axes)
            if len(panels) > 1:
                axes.set_title(f"level {level}", fontsize="medium")
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
        look = dict(linewidth=1) if len(steps) > 30 else dict(linewidth=1.8, marker=".")  # one has no line
        axes.plot(steps, values, label=label, color=f"C{index}", **look)
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
    axes.stairs(sorted((count / total for count in counts), reverse=True), fill=True)
    axes.axhline(1 / len(counts), color=INK, linewidth=0.8, linestyle="--")
    axes.set_xlabel(f"rank of the code ({used} of {len(counts)} occur); dashed: all alike")
    axes.set_ylabel("share of all places")


def _draw_heat(axes: Any, bits: list[list[float]]) -> None:
    picture = axes.imshow(bits, cmap="viridis", vmin=0)
    axes.figure.colorbar(picture, label="bits/code")
    axes.set_axis_off()
