"""What the numbers say of a run: the figures of `metrics.json`, part by part; parts that are done are kept."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from vqprior.configs.commands import Evaluation
from vqprior.configs.errors import UserError
from vqprior.configs.schema import Precision
from vqprior.runtime.data import DataSet
from vqprior.runtime.devices import fp32_precision, name_of
from vqprior.runtime.files import sha256, write_json
from vqprior.runtime.lock import lock
from vqprior.runtime.processes import device_of_process, on_main, say
from vqprior.runtime.run_dir import RunDir, git_commit, package_version

from . import tables
from .classifier import RECIPE
from .features import CLASSIFIER
from .parts import PARTS, archive
from .rows import digest
from .subject import SEED, Subject

Metrics = dict[str, Any]
ARCHIVE = "archive-"  # and the digest of the file and its name: a part of its own
FORMAT = 3  # of the figures of a part: others are measured anew


def evaluate(config: Evaluation, run: RunDir, data: DataSet) -> Metrics:
    """Measure the parts of a run that `config.only` names, print their tables and write `metrics.json`.

    Raises:
        UserError: a stage is missing, the stages do not belong together, the data are not those they learnt from, or a
            part cannot be measured on them.
    """
    git_commit()  # now, since parts take long
    subject = Subject.open(config, run, data)
    on_main(_claim, subject.folder)
    asked = {
        name: depends_on(name, subject) for name in config.only or possible(subject)
    }  # all are refused before one is measured
    for name, settings in asked.items():
        _keep(subject, name, settings, partial(PARTS[name], subject))
    for path in map(Path, config.archives):
        content = on_main(_content, "--archives", path, "expected one as `vqprior sample` writes it, samples.npz")
        what = {"file": str(path), "archive": content}
        name = f"{ARCHIVE}{digest(what)}"
        _keep(subject, name, depends_on(ARCHIVE, subject) | what, partial(archive, subject, path, name, content))
        on_main(_forget_others, subject.folder, str(path), name)
    metrics = on_main(_assemble, subject)
    say(tables.text(metrics))
    return metrics


def _keep(subject: Subject, name: str, asked: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> None:
    """Measure a part, unless its figures for these settings are there."""
    if on_main(_read, subject.folder, name, asked) is None:
        figures = measure()
        on_main(_write, subject.folder, name, asked, figures)
    else:
        say(f"evaluate: {name} is done")


def _forget_others(folder: Path, file: str, name: str) -> None:
    """Delete what was measured of an archive that stood in this file before."""
    for old in folder.glob(f"{ARCHIVE}*.json"):
        part = _read(folder, old.stem)
        if old.stem != name and part and part["asked"]["file"] == file:
            for classifier in folder.glob(f"classifier-{old.stem}-*.safetensors"):
                classifier.unlink()
            old.unlink()


def _content(flag: str, path: Path, expected: str) -> str:
    if not path.is_file():
        raise UserError(f"{flag} {path} is no file; {expected}")
    return sha256(path)


def _claim(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    lock(folder)


def possible(subject: Subject) -> Iterable[str]:
    """The parts that can be measured on these data; the others are named."""
    if subject.label_names or subject.config.features != CLASSIFIER:
        return PARTS if subject.label_names else [name for name in PARTS if name != "labels"]
    say("evaluate: no ladder without classes or another network: pip install 'vqprior[eval]', --features inception-v3-compat")
    return [name for name in PARTS if name not in ("ladder", "labels")]


def depends_on(name: str, subject: Subject) -> dict[str, Any]:
    """The settings that the figures of a part are a function of.

    Raises:
        UserError: labels are asked for and there are none, or one class is to be compared with all.
    """
    config, asked = subject.config, {"format": FORMAT} | subject.origin()
    weights = config.features_weights
    if name == "labels" and not subject.label_names:
        raise UserError("the part `labels` needs classes, and these data have none")
    if name in ("ladder", "labels") and config.sample.label:
        raise UserError(
            f"the part `{name}` compares samples of all classes with real images, and sample.label is "
            f'{config.sample.label!r}. Take it back with --sample.label "", or measure samples of one class '
            "with --archives"
        )
    if name != "reconstruction":
        asked |= {"n": subject.n}
    if name in ("ladder", "labels", "copies"):
        asked |= {"drawing": subject.drawing()}
    if name in ("ladder", "labels", "copies", ARCHIVE):
        asked |= {"classifier_steps": config.classifier_steps, "seed": SEED}
        asked |= {"features": config.features, "recipe": RECIPE}
        content = lambda: _content("--features_weights", Path(weights), "expected the file of the weights")
        asked |= {"weights": on_main(content) if weights else None}
    return asked


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _read(folder: Path, name: str, asked: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """A part that is there, `asked` and `figures`; None where there is none, or one of other settings."""
    try:
        part = json.loads(_file(folder, name).read_text())
        return part if asked in (None, part["asked"]) and part["asked"]["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(folder: Path, name: str, asked: dict[str, Any], figures: dict[str, Any]) -> None:
    by = _versions(asked.get("features", CLASSIFIER), asked["precision"])
    write_json(_file(folder, name), {"asked": asked, "figures": figures, "by": by})


def _versions(features: str, precision: Precision) -> dict[str, Any]:
    """What measures a part here: figures that are kept may be of an older version than those beside them."""
    found = {"version": package_version(), "commit": git_commit(), "torch": torch.__version__}
    found["threads"] = torch.get_num_threads()  # a trained classifier is a function of them, up to rounding
    device = device_of_process()
    found |= {"device": device.type, "device_name": name_of(device), "fp32_precision": fp32_precision(precision)}
    return found if features == CLASSIFIER else found | {"torch-fidelity": version("torch-fidelity")}


def _assemble(subject: Subject) -> Metrics:
    """All parts that are there, of these networks and data, into `metrics.json`."""
    config, origin = subject.config, subject.origin()
    parts = {name: part for name in PARTS if (part := _read(subject.folder, name)) and origin.items() <= part["asked"].items()}
    names = {"reconstruction": "stage1", "likelihood": "stage2"}
    metrics: Metrics = {names.get(name, name): part["figures"] for name, part in parts.items()}
    others = [_read(subject.folder, path.stem) for path in sorted(subject.folder.glob(f"{ARCHIVE}*.json"))]
    others = [part for part in others if part and origin.items() <= part["asked"].items()]
    if others:
        metrics["archives"] = {part["asked"]["file"]: part["figures"] for part in others}
    metrics["protocol"] = {
        "split": "test",
        "images": len(subject.data.test),
        "precision": config.precision,
        "seed": config.seed,
        "steps": {"stage1": subject.vqvae_found.step, "stage2": subject.prior_found.step},
        "vqvae": subject.vqvae_found.fingerprint,
        "prior": subject.prior_found.fingerprint,
        "data": asdict(config.data) | {"fingerprint": subject.data.fingerprint},
        "parts": {names.get(name, name): part["asked"] | {"by": part["by"]} for name, part in parts.items()},
        "archives": {part["asked"]["file"]: part["asked"] | {"by": part["by"]} for part in others},
        **_versions(CLASSIFIER, config.precision),
    }
    write_json(subject.run.metrics, metrics)
    return metrics
