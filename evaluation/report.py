"""A run as one HTML file to send to a colleague: pictures, figures, curves, settings; it asks for nothing."""

import base64
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vqprior.configs import dump
from vqprior.configs.commands import Evaluation, Report
from vqprior.configs.errors import UserError, command_line
from vqprior.runtime.chunks import in_chunks
from vqprior.runtime.data import DataSet
from vqprior.runtime.files import write_file
from vqprior.runtime.pictures import beneath, columns_of, grid, tiled, to_uint8
from vqprior.runtime.processes import on_main, say
from vqprior.runtime.run_dir import RunDir
from vqprior.sampling.labels import label_of_text

from .parts import PARTS, Metrics, shown, tables
from .plots import curves, plots
from .subject import Subject
from .tables import Row, Table, filled, given
from .weights import is_of

SHOWN_CLASSES, ROWS_OF_SAMPLES, RECONSTRUCTIONS, CODES = 16, 8, 16, 1024
AROUND = 5  # codes in a row of which the middle one is shown
ACROSS = 8  # test images in a row above their reconstructions


def report(config: Report, run: RunDir, data: DataSet) -> Path:
    """Write the page of a run and say where it is.

    Raises:
        UserError: jinja2 or matplotlib are missing, the run has not been evaluated, a stage is missing, or
            there is no place for the page.
    """
    out = config.page(run.path)
    on_main(_refuse_place, out)
    subject = Subject.open(Evaluation.of(config), run, data)
    on_main(lambda: write_file(out, _page(subject)))
    say(f"report: {out}, {out.stat().st_size / 2**20:.1f} MB in one file")
    return out


def _refuse_place(out: Path) -> None:
    """Refuse, with a UserError, a page that could not be written once all is drawn."""
    if out.is_dir():
        raise UserError(f"--file {out} is a folder; give a file, such as --file {out / 'report.html'}")
    if not out.parent.is_dir():
        raise UserError(f"--file {out} is in no folder that there is; make {out.parent} first")


def _page(subject: Subject) -> str:
    """The page as HTML."""
    try:
        import jinja2
        import matplotlib  # noqa: F401  the plots need it
    except ImportError as error:
        raise UserError(f"a report needs {error.name}: pip install 'vqprior[report]'") from error
    run = subject.run
    if not run.metrics.is_file():
        raise UserError(f"{run.path} has no figures yet: {command_line('evaluate', run.path)}")
    metrics = _metrics(subject)
    protocol, measured_as = metrics["protocol"], metrics["protocol"].get("parts", {})
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = _pictures(subject, tables(metrics))
    title = lambda level: f"The codebook of level {level}" if len(subject.levels) > 1 else "The codebook"
    codebooks = [(title(level), pictures[f"codebook{level}"]) for level in range(len(subject.levels))]
    return environment.get_template("report.html").render(
        name=run.path.resolve().name,
        priors=" and ".join(run.config().kinds_of_priors()),
        images=filled("{images:,}", protocol),
        tiles=_tiles(metrics),
        sections=[*shown(metrics)],
        drawn_for={name: _drawn(part.get("drawing", {})) for name, part in measured_as.items()},
        classes=_classes(subject),
        drawn=_drawn(subject.drawing()),
        pictures=pictures,
        codebooks=codebooks,
        curves=curves(run, len(subject.levels)),
        plots=plots(metrics),
        config=dump(run.config()),
        environment=_environment(run, protocol),
    )


def _metrics(subject: Subject) -> Metrics:
    """The figures of a run.

    Raises:
        UserError: they are damaged, or of other weights than the run has now.
    """
    run = subject.run
    try:
        metrics = json.loads(run.metrics.read_text())
        ours = is_of(metrics["protocol"], subject.vqvae_fingerprint, subject.prior_checkpoints)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        found = f"{run.metrics} is damaged ({error})"
        raise UserError(f"{found}; write it anew: {command_line('evaluate', run.path)}") from error
    if not ours:
        found = f"{run.metrics} is of other weights than the run has now"
        raise UserError(f"{found}: {command_line('evaluate', run.path)}")
    return metrics


def _tiles(metrics: Metrics) -> list[tuple[str, str]]:
    """The figures at the head of the page: what they are, and themselves."""
    tiles = []
    for part in PARTS.values():
        if part.key_of_metrics in metrics:
            figures = metrics[part.key_of_metrics]
            for what, value, _ in given(part.tiles, figures):
                tiles.append((filled(what, figures), filled(value, figures)))
    return tiles


def _classes(subject: Subject) -> str:
    """Whose samples are shown, in words."""
    names, one = subject.label_names, subject.config.sample.label
    if one:
        return f"All of class {names[label_of_text(one, names)]}"
    return f"The classes in turn, a column each: {', '.join(names[:SHOWN_CLASSES])}" if names else ""


IDLE = {("label", None), ("label", ""), ("top_k", 0), ("top_p", 1.0)}
"""Settings of drawing with the values that change nothing."""


def _drawn(settings: dict[str, Any]) -> str:
    """How samples were drawn, in words."""
    told = {name.replace("_", "-"): value for name, value in settings.items() if (name, value) not in IDLE}
    if told.get("precision") == "no":
        told["precision"] = "fp32"
    return ", ".join(f"{name} {value}" for name, value in told.items())


def _pictures(subject: Subject, tables: Iterable[Table]) -> dict[str, str]:
    """The images of the page as data URLs, by name: what the networks make, and pictures of the parts."""
    test, sample = subject.data.test, subject.config.sample

    # Samples: a column a class, or one class for all
    columns = columns_of(len(subject.label_names))
    numbers = torch.arange(columns * ROWS_OF_SAMPLES)
    samples = subject.draw(numbers, subject.networks.labels_for(numbers % columns, sample.label))

    # Test images above their reconstructions and errors
    x = test.images(torch.linspace(0, len(test) - 1, min(RECONSTRUCTIONS, len(test))).long())
    x_hat = subject.reconstruct(x)
    errors = ((x.int() - x_hat.int()).abs() * 4).clamp(max=255).to(torch.uint8)
    pictures = {
        "samples": _png(grid(samples, columns)),
        "reconstructions": _png(beneath(x, x_hat, errors, columns=ACROSS)),
    }
    for level in range(len(subject.levels)):
        pictures[f"codebook{level}"] = _png(_codebook(subject, level))
    for table in tables:
        for name, _ in table.pictures:
            if (file := subject.folder / name).is_file():
                pictures[name] = _url(file.read_bytes())
    return pictures


def _codebook(subject: Subject, level: int) -> Tensor:
    """Each code of a level, decoded in the midst of others of its kind: one picture [H', W', 3] uint8.

    Of several levels, the others say nothing: their vectors are zero. Of codes that add up it is the first.
    """
    vqvae, count = subject.vqvae, min(subject.vqvae.K, CODES)
    coarsest = -(
        -AROUND // 2**level
    )  # positions in a row, of this level at least as many as should be around
    position = coarsest * 2**level // 2
    factor = subject.config.stage1.coarsest_factor // 2**level

    @torch.no_grad()
    def decoded(codes: Tensor) -> Tensor:
        vectors = []
        for index, quantizer in enumerate(vqvae.quantizers):
            side = coarsest * 2**index
            shape = (len(codes), side, side * vqvae.vectors_per_position)
            embedded = quantizer.first.embed(codes.to(vqvae.device)[:, None, None].expand(shape))
            vectors.append(embedded if index == level else torch.zeros_like(embedded))
        return to_uint8(vqvae.decode(vectors))

    images = in_chunks(decoded, count, subject.config.inference_batch)
    middle = slice(position * factor, (position + 1) * factor)
    tiles = images[:, :, middle, middle]
    enlarged = max(1, 16 // factor)
    tiles = tiles.repeat_interleave(enlarged, 2).repeat_interleave(enlarged, 3)
    return tiled(tiles, 16 if count <= 256 else 32, padding=1)


def _png(picture: Tensor) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture.numpy()).save(buffer, format="PNG", optimize=True)
    return _url(buffer.getvalue())


def _url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _environment(run: RunDir, protocol: dict[str, Any]) -> dict[str, str]:
    """What the run and its figures were made with."""
    steps = protocol.get("steps", {})
    rows = [
        Row("vqprior", "{version}, commit " + (protocol.get("commit") or "unknown")),
        Row("torch", "{torch}"),
        Row("steps", ", ".join(f"{stage} {step:,}" for stage, step in steps.items())),
        Row("VQ-VAE", "{vqvae}"),
        Row("prior", "{prior}"),
        Row("data", "{data[fingerprint]}"),
    ]
    typed = [command_line(*start["command"]) for start in run.starts() if start["command"]]  # not exported
    commands = list(dict.fromkeys(typed))[-5:]  # each once, however often the run was resumed
    found = {row.name: filled(row.value, protocol) for row in rows}
    return found | ({"commands": "\n".join(commands)} if commands else {})
