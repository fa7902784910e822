"""The curves of docs/curves.md: python -m benchmarks.curves --out curves

Runs the commands that the page prints, in OUT, where those that are done are passed over, and draws the
pictures in docs/images of their event files. Needs the extras `demo` and `report`.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vqprior.evaluation.plots import scalars
from vqprior.runtime.run_dir import RunDir

from .printed import DOCS, IMAGES, run_commands

GOOD, BAD, BESIDE = "tab:blue", "tab:red", "tab:gray"


class Line(NamedTuple):
    """A curve of a run."""

    name: str  # in the legend
    run: str
    series: str  # the folder of event files
    tag: str
    colour: str


class Panel(NamedTuple):
    """A chart."""

    title: str
    axis: str
    lines: Sequence[Line]


def of_both(axis: str, tag: str) -> Panel:
    """The same curve of the run that is well and of the one whose codebook dies."""
    names = {"healthy": GOOD, "dying": BAD}
    return Panel("", axis, [Line(name, name, "validation", tag, colour) for name, colour in names.items()])


def of_prior(run: str, title: str) -> Panel:
    """Bits/code of a prior."""
    drawn = (
        ("validation", "validation", BAD),
        ("train", "", GOOD),
        ("model by place", "by_place", BESIDE),
    )
    lines = [Line(name, run, series, "stage2/bits_per_code", colour) for name, series, colour in drawn]
    return Panel(title, "bits/code", lines)


def of_levels(run: str, title: str) -> Panel:
    """The error with the codes of each level exchanged."""
    drawn = (
        ("fine codes of another picture", "stage1_codes/swapped_mse_1", BESIDE),
        ("coarse codes of another picture", "stage1_codes/swapped_mse_0", BAD),
        ("its own codes", "stage1/mse", GOOD),
    )
    lines = [Line(name, run, "validation", tag, colour) for name, tag, colour in drawn]
    return Panel(title, "mean squared error", lines)


PICTURES: Mapping[str, Sequence[Panel]] = {
    "curves_codebook": [
        of_both("mean squared error", "stage1/mse"),
        of_both("perplexity of 128 codes", "stage1_codes/perplexity"),
        of_both("share of the codes in use", "stage1_codes/usage"),
    ],
    "curves_prior": [of_prior("healthy", "healthy"), of_prior("overfitting", "overfitting")],
    "curves_levels": [of_levels("two-levels", "healthy"), of_levels("empty-level", "an empty level")],
}


def draw(file: Path, panels: Sequence[Panel], runs: Path) -> None:
    """Charts side by side, as a PNG; those with one kind of axis share it, and errors have a logarithmic
    one."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9}):
        figure = Figure(figsize=(10, 3.2), dpi=90, layout="constrained")
        shared = len({panel.axis for panel in panels}) == 1
        pairs = [*zip(figure.subplots(1, len(panels), sharey=shared), panels, strict=True)]
        for axes, panel in pairs:
            draw_panel(axes, panel, runs)
        for axes, panel in pairs:  # once all are drawn: they may share their limits
            if "error" in panel.axis:
                axes.set_yscale("log")
            else:
                axes.set_ylim(bottom=0)
        figure.savefig(file)
    print(file, f"{file.stat().st_size / 1024:.0f} KB")


def draw_panel(axes: Any, panel: Panel, runs: Path) -> None:
    """One chart on matplotlib's axes."""
    for line in panel.lines:
        values = scalars(RunDir(runs / line.run), line.series)[line.tag]
        axes.plot([*values], [*values.values()], label=line.name, color=line.colour, linewidth=1.8)
    axes.set(title=panel.title, xlabel="step", ylabel=panel.axis)
    axes.legend(frameon=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    out = parser.parse_args().out
    run_commands(DOCS / "curves.md", out)
    for name, panels in PICTURES.items():
        draw(IMAGES / f"{name}.png", panels, out / "runs")


if __name__ == "__main__":
    main()
