"""What the numbers say of a run: the figures of `metrics.json`, part by part; parts that are done are kept."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from configs.errors import UserError
from configs.schema import Evaluation
from runtime.data import DataSet
from runtime.files import write_json
from runtime.lock import lock
from runtime.processes import on_main, say
from runtime.run_dir import RunDir, git_commit, package_version

from .evaluation import tables
from .evaluation.features import CLASSIFIER
from .evaluation.parts import PARTS
from .evaluation.subject import SEED, Subject

Metrics = dict[str, Any]
FORMAT = 2  # of the figures of a part: others are measured anew


def evaluate(config: Evaluation, run: RunDir, data: DataSet) -> Metrics:
    """Measure the parts of a run that `config.only` names, print their tables and write `metrics.json`.

    Raises:
        UserError: a stage is missing, the stages do not belong together, the data are not those they learnt from, or a
            part cannot be measured on them.
        Interrupted: the command was told to stop; parts that are done stay.
    """
    subject = Subject.open(config, run, data)
    on_main(lambda: _claim(subject.folder))
    for name in config.only or possible(subject):
        asked = depends_on(name, subject)
        if on_main(lambda: _read(subject.folder, name, asked)) is None:
            figures = PARTS[name](subject)
            on_main(lambda: _write(subject.folder, name, asked, figures))
        else:
            say(f"evaluate: {name} is done")
    metrics = on_main(lambda: _assemble(subject))
    say(tables.text(metrics))
    return metrics


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
        UserError: labels are asked for, and there are none.
    """
    config, asked = subject.config, {"format": FORMAT} | subject.origin()
    if name == "labels" and not subject.label_names:
        raise UserError("the part `labels` needs classes, and these data have none")
    if name != "reconstruction":
        asked |= {"n": subject.n}
    if name in ("ladder", "labels", "copies"):
        asked |= {"drawing": subject.drawing(), "label": config.sample.label, "classifier_steps": config.classifier_steps}
        asked |= {"features": config.features, "weights": config.features_weights, "seed": SEED}
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
    write_json(_file(folder, name), {"asked": asked, "figures": figures})


def _assemble(subject: Subject) -> Metrics:
    """All parts that are there, of these networks and data, into `metrics.json`."""
    config, origin = subject.config, subject.origin()
    parts = {name: part for name in PARTS if (part := _read(subject.folder, name)) and origin.items() <= part["asked"].items()}
    names = {"reconstruction": "stage1", "likelihood": "stage2"}
    metrics: Metrics = {names.get(name, name): part["figures"] for name, part in parts.items()}
    metrics["protocol"] = {
        "split": "test",
        "images": len(subject.data.test),
        "precision": config.precision,
        "seed": config.seed,
        "steps": {"stage1": subject.vqvae_found.step, "stage2": subject.prior_found.step},
        "vqvae": subject.vqvae_found.fingerprint,
        "prior": subject.prior_found.fingerprint,
        "data": asdict(config.data) | {"fingerprint": subject.data.fingerprint},
        "parts": {names.get(name, name): part["asked"] for name, part in parts.items()},
        "version": package_version(),
        "commit": git_commit(),
        "torch": torch.__version__,
    }
    write_json(subject.run.metrics, metrics)
    return metrics
