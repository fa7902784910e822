"""What the numbers say of a run: the figures of `metrics.json`, part by part; what is done is kept."""

from dataclasses import asdict
from pathlib import Path

from vqprior.configs.commands import Evaluation
from vqprior.runtime.data import DataSet
from vqprior.runtime.files import write_json
from vqprior.runtime.lock import lock
from vqprior.runtime.processes import on_main, say
from vqprior.runtime.run_dir import RunDir, git_commit

from .measured import read_part, versions, write_part
from .part import Part, Settings
from .parts import PARTS, Metrics, archives, tables
from .subject import Subject
from .tables import text


def evaluate(config: Evaluation, run: RunDir, data: DataSet | None) -> Metrics:
    """Measure the parts of a run that `config.only` names, print their tables and write `metrics.json`.

    Raises:
        UserError: a stage is missing, the stages do not belong together, the data are not those they learnt
            from, or a part cannot be measured on them.
    """
    git_commit()  # now, since parts take long
    subject = Subject.open(config, run, data)
    on_main(_claim, subject.folder)

    # Each part that was named, or can be measured, and samples from elsewhere: what one of them lacks is
    # refused before any is measured
    of_files = {path: archives.archive_part(path) for path in map(Path, config.archives)}
    parts = [PARTS[name] for name in config.only] or possible(subject)
    settings = [part.settings(subject) for part in (*parts, *of_files.values())]
    for part, of_part in zip((*parts, *of_files.values()), settings, strict=True):
        _keep(subject, part, of_part)
    for path, part in of_files.items():
        on_main(archives.forget_others, subject.folder, path, part.name)

    metrics = on_main(_assemble, subject)
    say(text(tables(metrics)))
    return metrics


def possible(subject: Subject) -> list[Part]:
    """The parts that can be measured on these data; what another network, or more images, would make possible
    is said."""
    for part in PARTS.values():
        if part.needs_features and not subject.has_features and subject.data:
            say(
                f"evaluate: no {part.name} without classes or another network: pip install 'vqprior[eval]', "
                "--features inception-v3-compat"
            )
        elif subject.n < part.needs_images:
            say(f"evaluate: no {part.name}: it needs {part.too_few(subject)}")
    return [part for part in PARTS.values() if part.is_possible(subject)]


def _claim(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    lock(folder)


def _keep(subject: Subject, part: Part, settings: Settings) -> None:
    """Measure a part, unless its figures for these settings are there."""
    done = on_main(read_part, subject.folder, part.name)
    if done and done.settings == settings:
        say(f"evaluate: {part.name} is done")
        return
    figures = part.measure(subject)
    on_main(write_part, subject.folder, part.name, settings, figures)


def _assemble(subject: Subject) -> Metrics:
    """All parts that are there, of these networks and data, into `metrics.json`."""
    config, weights = subject.config, subject.weights()
    origin = subject.origin().items()
    read = {part.key_of_metrics: read_part(subject.folder, name) for name, part in PARTS.items()}
    ours = {key: part for key, part in read.items() if part and origin <= part.settings.items()}
    measured = archives.measured_archives(subject.folder).values()
    others = [part for part in measured if origin <= part.settings.items()]
    metrics: Metrics = {key: part.figures for key, part in ours.items()}
    if others:
        metrics["archives"] = {part.settings["file"]: part.figures for part in others}
    priors = enumerate(subject.prior_checkpoints)
    steps = {"stage1": subject.vqvae_checkpoint.step} if subject.vqvae_checkpoint else {}
    steps |= {subject.run.stage2_of(level).name: saved.step for level, saved in priors}
    metrics["protocol"] = {
        "split": "test",
        "images": subject.maps.header.sizes["test"],
        "precision": config.precision,
        "seed": config.seed,
        "steps": steps,
        **weights,
        "data": asdict(config.data) | {"fingerprint": subject.maps.header.data_fingerprint},
        "parts": {key: part.protocol for key, part in ours.items()},
        "archives": {part.settings["file"]: part.protocol for part in others},
        **versions(config.precision),
    }
    write_json(subject.run.metrics, metrics)
    return metrics
