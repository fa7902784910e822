"""A run as one HTML file to send to a colleague: pictures, figures, curves, settings; no request leaves the page."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vqprior.configs import dump
from vqprior.configs.commands import Evaluation, Report
from vqprior.configs.errors import UserError
from vqprior.runtime.data import DataSet
from vqprior.runtime.files import write_file
from vqprior.runtime.pictures import grid, tiled
from vqprior.runtime.processes import on_main, say
from vqprior.runtime.run_dir import RunDir
from vqprior.sampling.labels import label_of_text
from vqprior.sampling.tokenizer import in_chunks

from .subject import LEARNT, ROWS, Subject
from .tables import kid_text

SHOWN_CLASSES, ROWS_OF_SAMPLES, RECONSTRUCTIONS, CODES = 16, 8, 16, 1024
INK = "#010203"  # a colour that matplotlib draws with, and that the page replaces by its own


def report(config: Report, run: RunDir, data: DataSet) -> Path:
    """Write the page of a run and say where it is.

    Raises:
        UserError: jinja2 or matplotlib are missing, the run has not been evaluated, or its stages are not there.
    """
    subject = Subject.open(Evaluation.of(config), run, data)
    out = Path(config.file or run.path / "report.html")
    on_main(lambda: write_file(out, _page(subject)))
    say(f"report: {out}, {out.stat().st_size / 2**20:.1f} MB in one file")
    return out


def _page(subject: Subject) -> str:
    """The page as HTML."""
    try:
        import jinja2
        import matplotlib  # noqa: F401  the plots need it
    except ImportError as error:
        raise UserError(f"a report needs {error.name}: pip install 'vqprior[report]'") from error
    run = subject.run
    if not run.metrics.is_file():
        raise UserError(f"{run.path} has no figures yet: vqprior evaluate {run.path}")
    try:
        metrics = json.loads(run.metrics.read_text())
        parts, prior = (metrics["protocol"][name] for name in ("parts", "prior"))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run.metrics} is damaged ({error}); write it anew: vqprior evaluate {run.path}") from error
    if prior != subject.prior_found.fingerprint:
        raise UserError(f"{run.metrics} is of other weights than the run has now: vqprior evaluate {run.path}")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html").render(
        name=run.path.resolve().name,
        metrics=metrics,
        rows=ROWS,
        kid_text=kid_text,
        learnt=LEARNT,
        classes=_classes(subject),
        drawn=_drawn(subject.drawing()),
        ladder_drawn=_drawn(parts.get("ladder", {}).get("drawing", {})),
        pictures=_pictures(subject),
        plots=_plots(run, metrics),
        config=dump(run.config()),
        environment=_environment(run, metrics),
    )


def _classes(subject: Subject) -> str:
    """Whose samples are shown, in words."""
    names, one = subject.label_names, subject.config.sample.label
    if one:
        return f"All of class {names[label_of_text(one, names)]}"
    return f"A column a class: {', '.join(names[:SHOWN_CLASSES])}" if names else ""


def _drawn(settings: dict[str, Any]) -> str:
    """How samples were drawn, in words."""
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)


def _pictures(subject: Subject) -> dict[str, str]:
    """The images of the page, by name, as data URLs."""
    data = subject.data
    columns = min(len(subject.label_names) or SHOWN_CLASSES // 2, SHOWN_CLASSES)
    numbers = torch.arange(columns * ROWS_OF_SAMPLES)
    labels = subject.networks.labels_for(numbers % columns, subject.config.sample.label)  # a column a class, or one for all
    samples = subject.draw(numbers, labels)
    test = data.test.images(torch.linspace(0, len(data.test) - 1, min(RECONSTRUCTIONS, len(data.test))).long())
    x_hat = subject.reconstruct(test)
    errors = ((test.int() - x_hat.int()).abs() * 4).clamp(max=255).to(torch.uint8)
    across = min(8, len(test))
    three = [part for group in zip(*(x.split(across) for x in (test, x_hat, errors))) for part in group]
    found = {
        "samples": _png(grid(samples, columns)),
        "reconstructions": _png(grid(torch.cat(three), across)),
        "codebook": _png(_codebook(subject)),
    }
    for space in ("pixels", "features"):
        if (file := subject.folder / f"nearest_{space}.png").is_file():
            found[f"nearest_{space}"] = _url(file.read_bytes())
    return found


def _codebook(subject: Subject) -> Tensor:
    """Each code, decoded in the midst of others of its kind: one picture [H', W', 3] uint8."""
    count, factor = min(subject.K, CODES), subject.config.stage1.factor
    codes = torch.arange(count)
    around = codes[:, None, None].expand(-1, 5, 5 * subject.vqvae.codes_per_position)
    batch = subject.config.inference_batch
    images = in_chunks(lambda at: subject.networks.tokenizer.images_of(around[at]), count, batch)
    middle = slice(2 * factor, 3 * factor)
    tiles = images[:, :, middle, middle]
    tiles = tiles.repeat_interleave(max(1, 16 // factor), 2).repeat_interleave(max(1, 16 // factor), 3)
    return tiled(tiles, 16 if count <= 256 else 32, padding=1)


def _png(picture: Tensor) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture.numpy()).save(buffer, format="PNG", optimize=True)
    return _url(buffer.getvalue())


def _url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _plots(run: RunDir, metrics: dict[str, Any]) -> dict[str, str]:
    """The plots of the page, by name, as SVG in the page's own colours."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {
        "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "svg.hashsalt": "vqprior",
        "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
        "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    }  # fmt: skip

    def svg(draw: Any, width: float = 5.2, height: float = 2.8) -> str:
        with matplotlib.rc_context(style):
            figure = Figure(figsize=(width, height), layout="constrained")
            draw(figure.subplots())
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        text = buffer.getvalue()
        return text[text.index("<svg") :].replace(INK, "currentColor")

    plots: dict[str, str] = {}
    for name, (stage, title, curves) in CURVES.items():
        if values := _curves(run, stage, curves):
            plots[name] = svg(lambda axes: _draw_curves(axes, values, title))
    if "stage1" in metrics:
        plots["usage"] = svg(lambda axes: _draw_usage(axes, metrics["stage1"]["code_counts"]))
    if "stage2" in metrics:
        plots["heat"] = svg(lambda axes: _draw_heat(axes, metrics["stage2"]["bits_by_position"]), 4.2)
    return plots


CURVES = {
    "stage1": ("stage1", "mean squared error", {"train/mse": "train", "validation/mse": "validation"}),
    "perplexity": ("stage1", "codebook perplexity", {"validation/perplexity": "validation"}),
    "stage2": (
        "stage2", "bits/code",
        {"train/bits_per_code": "train (batches, with dropout)", "train/bits_per_code_evaluated": "train",
         "validation/bits_per_code": "validation"},
    ),
}  # fmt: skip
"""Plots by name: the stage, what the axis says, and the scalars with their names in the legend."""


def _curves(run: RunDir, stage: str, tags: dict[str, str]) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and values of scalars in TensorBoard's files, by their names in the legend."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not (run.tensorboard / stage).is_dir():
        return {}
    events = EventAccumulator(str(run.tensorboard / stage), size_guidance={"scalars": 500}).Reload()
    there = set(events.Tags()["scalars"])
    points = {label: events.Scalars(tag) for tag, label in tags.items() if tag in there}
    return {label: ([event.step for event in found], [event.value for event in found]) for label, found in points.items()}


def _draw_curves(axes: Any, values: dict[str, tuple[list[int], list[float]]], title: str) -> None:
    for index, (label, (steps, numbers)) in enumerate(values.items()):
        axes.plot(steps, numbers, label=label, linewidth=1 if len(steps) > 30 else 1.8, color=f"C{index}")
    if max(max(n) for _, n in values.values()) > 20 * min(min(n) for _, n in values.values()) > 0:
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel(title)
    axes.legend()


def _draw_usage(axes: Any, counts: list[int]) -> None:
    total = max(sum(counts), 1)
    axes.bar(range(len(counts)), sorted((count / total for count in counts), reverse=True), width=1.0)
    axes.axhline(1 / len(counts), color=INK, linewidth=0.8, linestyle="--")
    axes.set_xlabel(f"the {sum(c > 0 for c in counts)} codes that occur, by rank; dashed: all alike")
    axes.set_ylabel("share of all places")


def _draw_heat(axes: Any, bits: list[list[float]]) -> None:
    picture = axes.imshow(bits, cmap="viridis", vmin=0)
    axes.figure.colorbar(picture, label="bits")
    axes.set_xticks([]), axes.set_yticks([])


def _environment(run: RunDir, metrics: dict[str, Any]) -> dict[str, str]:
    protocol = metrics["protocol"]
    return {
        "vqprior": f"{protocol['version']}, commit {protocol['commit'] or 'unknown'}",
        "torch": protocol["torch"],
        "steps": ", ".join(f"{stage} {step:,}" for stage, step in protocol["steps"].items()),
        "VQ-VAE": protocol["vqvae"],
        "prior": protocol["prior"],
        "data": protocol["data"]["fingerprint"],
        "commands": "\n".join("vqprior " + " ".join(map(str, start["command"])) for start in run.starts()[-5:]),
    }
