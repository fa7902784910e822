"""The model card of an exported run: README.md with the front matter that model hubs read.

What is not known is said to be so: the data and the licence are stated by whoever exports, figures are those
that were measured of these very weights, and what limits the model is said in figures.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from vqprior.configs.commands import Export
from vqprior.runtime.checkpoint import Checkpoint
from vqprior.runtime.codes import Level, in_words
from vqprior.runtime.files import read_json
from vqprior.runtime.run_dir import RunDir
from vqprior.sampling.export import PICTURE
from vqprior.sampling.networks import prior_checkpoints
from vqprior.sampling.onnx_graphs import FOLDER
from vqprior.stage1_vqvae.vqvae import vqvae_of

from .parts import PARTS, Metrics, tables
from .tables import Figures, Template, filled, markdown
from .weights import is_of

NOT_STATED = "not stated"
SHOWN_CLASSES = 20  # named in the card; config.json has them all


def card(out: RunDir, trained: RunDir, settings: Export) -> str:
    """The card as Markdown.

    Args:
        out: the exported folder.
        trained: the run that it was exported from, whose figures are shown.
    """
    priors = prior_checkpoints(out)
    name, metrics = Path(settings.out).resolve().name, _metrics(trained)
    label_names = priors[0].meta["codes"]["label_names"]
    limits = _limits(out, metrics, settings, classes=len(label_names))
    parts = [
        _front_matter(out, settings),
        f"# {name}",
        _purpose(out, priors[0].meta["codes"]),
        *_picture(out),
        "## Use",
        _use(out, name, label_names),
        "## Data and licence",
        _terms(out, settings, label_names),
        "## Figures",
        _figures(metrics),
        "## Limitations",
        "\n".join(f"- {limit}" for limit in limits),
        "## Origin",
        _origin(out, priors),
    ]
    return "\n\n".join(parts) + "\n"


def _metrics(trained: RunDir) -> Metrics | None:
    """The figures of a run; None where there are none, or they are of other weights."""
    metrics, priors = read_json(trained.metrics), prior_checkpoints(trained)
    imported = not trained.stage1.is_dir()
    vqvae = priors[0].meta["codes"]["vqvae"] if imported else vqvae_of(trained).fingerprint
    protocol = metrics.get("protocol", {}) if isinstance(metrics, dict) else {}
    return metrics if is_of(protocol, vqvae, priors) else None


def _front_matter(out: RunDir, settings: Export) -> str:
    config = out.config()
    kinds = {config.stage2_of(level).prior for level in range(config.stage1.levels)}
    front: dict[str, Any] = {
        "library_name": "vqprior",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["image-generation", "vq-vae", *sorted(kind.replace("_", "-") for kind in kinds)],
    }
    if settings.license:
        front["license"] = settings.license
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---"


def _purpose(out: RunDir, codes: Figures) -> str:
    config = out.config()
    priors = " and ".join(config.kinds_of_priors())
    maps = in_words(Level(**level) for level in codes["levels"])
    classes = f", of {len(codes['label_names'])} classes" if codes["label_names"] else ""
    if config.data.source == "codes":
        return (
            f"A prior ({priors}) over {maps}, made with vqprior. The codes were imported: what they stand "
            "for is not in this folder."
        )
    height, width = config.data.size
    colour = "grey" if config.data.channels == 1 else "colour"
    return (
        f"Draws {colour} pictures of {height}x{width} pixels{classes}, in two stages: a VQ-VAE "
        f"({config.stage1.quantizer}) turns a picture into {maps}, and a prior ({priors}) draws such codes. "
        "Made with vqprior."
    )


def _picture(out: RunDir) -> Iterator[str]:
    if (out.path / PICTURE).is_file():
        sample = out.config().sample
        yield f"![Samples]({PICTURE})"
        top_k = f", top-k {sample.top_k}" if sample.top_k else ""
        top_p = f", top-p {sample.top_p:g}" if sample.top_p < 1 else ""
        yield (
            f"*Samples, not chosen: seed {sample.seed}, guidance {sample.guidance:g}, temperature "
            f"{sample.temperature:g}{top_k}{top_p}; with classes, a column a class.*"
        )


def _use(out: RunDir, name: str, label_names: list[str]) -> str:
    lines = [
        "from vqprior import Generator",
        "",
        f'generator = Generator.from_pretrained("{name}")  # this folder, or OWNER/NAME on a model hub',
        "images = generator.sample(16, seed=0)  # uint8 [16, H, W, C]",
    ]
    if label_names:
        lines.append(
            f"images = generator.sample(labels=[{json.dumps(label_names[0], ensure_ascii=False)}] * 16)"
        )
    if out.config().data.source != "codes":
        lines.append("codes = generator.encode(images)  # int64, and back: generator.decode(codes)")
    code = "\n".join(lines)
    graphs = f"The folder `{FOLDER}` has the networks as ONNX graphs, for runtimes without torch."
    parts = [
        "With vqprior installed, and its extra `hub` where the folder is fetched from a hub:",
        f"```python\n{code}\n```",
        f"On the command line the folder is a run: `vqprior sample {name} --images 64 --out samples`. "
        "Weights are safetensors, and nothing is unpickled.",
        *([graphs] if (out.path / FOLDER).is_dir() else []),
    ]
    return "\n\n".join(parts)


def _terms(out: RunDir, settings: Export, label_names: list[str]) -> str:
    data = out.config().data
    shown = ", ".join(label_names[:SHOWN_CLASSES])
    more = f", and {len(label_names) - SHOWN_CLASSES} more" if len(label_names) > SHOWN_CLASSES else ""
    rows = {
        "Data": settings.data or NOT_STATED,
        "Source in vqprior": f"`{data.source}`",
        "Classes": f"{len(label_names)}: {shown}{more}" if label_names else "none",
        "Licence of the weights": settings.license or NOT_STATED,
    }
    return _pairs(rows)


def _pairs(rows: dict[str, str]) -> str:
    """Two columns."""
    lines = [f"| {name} | {' '.join(value.replace('|', '&#124;').split())} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _figures(metrics: Metrics | None) -> str:
    if metrics is None:
        return "None were measured of these weights (`vqprior evaluate`, then `vqprior export` anew)."
    protocol = metrics["protocol"]
    how = "On held-out pictures (split {split}), in {number}, seed {seed}; by vqprior {version}, "
    how += "commit {commit}, torch {torch}."
    number = "fp32" if protocol.get("precision") == "no" else protocol.get("precision")
    own = {name: figures for name, figures in metrics.items() if name != "archives"}  # files of others
    return "\n\n".join([filled(how, protocol | {"number": number}), markdown(tables(own))])


def _of_samples(figures: Figures) -> str:
    rows = figures.get("rows", {})
    both = figures | {"samples": rows.get("samples", {}), "train": rows.get("train", {})}
    return filled(
        "Samples are not real pictures: their {distance} to test pictures is {samples[frechet]:.3g}, that of "
        "as many training pictures {train[frechet]:.3g}; their precision is {samples[precision]:.2f} and "
        "their recall {samples[recall]:.2f} (of training pictures {train[precision]:.2f} and "
        "{train[recall]:.2f}).",
        both,
    )


LIMITS: dict[str, Template] = {
    "reconstruction": "What the codes leave out is lost: reconstructions of test pictures have a PSNR of "
    "{psnr:.1f} dB (squared error {relative_mse:.1%} of the variance), and samples show no more than they "
    "do.",
    "likelihood": "The prior needs {bits_per_code:.3f} bits a code on test pictures and "
    "{bits_per_code_train:.3f} on those that it learnt from: as far as the second is below the first, it "
    "knows them by heart.",
    "ladder": _of_samples,
    "labels": "A classifier that is right about {classifier_accuracy:.1%} of real test pictures sees the "
    "label that was asked for in {label_accuracy:.1%} of the samples.",
    "copies": "{pixels[share]:.1%} of the samples are nearer to a training picture, in pixels, than 99 % of "
    "test pictures are; 1 % would be chance, much more memory, or blur, which is near to all.",
}
"""What the figures of a part of the evaluation say of what the model cannot do."""


def _limits(out: RunDir, metrics: Metrics | None, settings: Export, *, classes: int) -> Iterator[str]:
    metrics, imported = metrics or {}, out.config().data.source == "codes"
    if not imported:
        yield (
            "It draws what its training pictures show, cut to one size, and nothing else: no text is "
            "understood, and whatever is missing or one-sided in them is so in the samples."
        )
    missing = []
    for name, words in LIMITS.items():
        part = PARTS[name]
        if part.key_of_metrics in metrics:
            yield filled(words, metrics[part.key_of_metrics])
        elif (classes or not part.needs_labels) and not (imported and part.needs_pictures):
            missing.append(f"`{name}`")
    if missing:
        yield f"Not measured, and so not known: {', '.join(missing)} (parts of `vqprior evaluate`)."
    if settings.half:
        yield "The weights are stored in 16 bits; figures are of those in 32, and differ a little."


def _origin(out: RunDir, priors: list[Checkpoint]) -> str:
    starts = [f"{start['version']} (commit {start['commit'] or 'unknown'})" for start in out.starts()]
    rows = {"Trained by vqprior": ", ".join(dict.fromkeys(starts)) or NOT_STATED}
    if out.config().data.source != "codes":
        rows["VQ-VAE"] = _named(vqvae_of(out))
    for level, found in enumerate(priors):
        rows[f"Prior of level {level}" if len(priors) > 1 else "Prior"] = _named(found)
    rows["Fingerprint of the data"] = f"`{priors[0].meta['codes']['data_fingerprint']}`"
    return _pairs(rows)


def _named(found: Checkpoint) -> str:
    return f"step {found.step:,}, sha256 `{found.fingerprint}`"
