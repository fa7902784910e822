"""What the numbers say of a run: the figures of `metrics.json`, part by part; what is done is kept."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from vqprior.configs.commands import Evaluation
from vqprior.configs.errors import UserError
from vqprior.runtime.data import DataSet
from vqprior.runtime.files import read_json, write_json
from vqprior.runtime.lock import lock
from vqprior.runtime.processes import on_main, say
from vqprior.runtime.run_dir import RunDir, git_commit

from .measured import Measured, read_part, versions, write_part
from .part import Part, Settings, origin, samples
from .parts import PARTS, Metrics, archives, tables
from .subject import Subject
from .tables import text


def evaluate(config: Evaluation, run: RunDir, data: DataSet | None) -> Metrics:
    """Measure the parts of a run that `config.only` names, print their tables and write `metrics.json`.

    Raises:
        UserError: a stage is missing, the stages do not belong together, the data are not those they learnt
            from, or a part cannot be measured on them, or none that is takes `config.classes`.
    """
    git_commit()  # now, since parts take long
    needs_priors = not config.only or config.archives or any(PARTS[name].needs_priors for name in config.only)
    opened = Subject.open if needs_priors or data is None else Subject.of_stage1
    subject = opened(config, run, data)
    on_main(_claim, subject.folder)

    # Each part that was named, or can be measured, and samples from elsewhere: what one of them lacks is
    # refused before any is measured
    of_files = {path: archives.archive_part(path) for path in map(Path, config.archives)}
    parts = [PARTS[name] for name in config.only] or possible(subject)
    of_samples = [part.name for part in PARTS.values() if samples in part.depends_on]
    if config.classes != "even" and not any(part.name in of_samples for part in parts):
        raise UserError(f"--classes is for {', '.join(of_samples)}, none of which is measured; leave it out")
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
    say(f"evaluate: measure {part.name}")
    figures = part.measure(subject)
    on_main(write_part, subject.folder, part.name, settings, figures)


def _why_left_out(part: Measured, of_today: Settings) -> str:
    """Why what was measured before is not among the figures of today, in words; nothing where it is."""
    differing = [key for key, value in of_today.items() if part.settings.get(key) != value]
    if "format" in differing:
        return "by another version of vqprior"
    if differing == ["precision"]:
        there, here = part.settings["precision"], of_today["precision"]
        return f"with --precision {there}, where this is with {here}"
    return "of other weights or pictures" if differing else ""


def _kept(subject: Subject, measured: dict[str, Measured], *, lost: Iterable[str]) -> dict[str, Measured]:
    """Of what was measured, by the names of parts and files, that of these networks and data; which is left
    out is said.

    Args:
        lost: names that `metrics.json` had, and that are not there any more.
    """
    why: dict[str, list[str]] = {}
    for name, part in measured.items():
        with_priors = name not in PARTS or PARTS[name].needs_priors
        why.setdefault(_why_left_out(part, origin(subject, with_priors=with_priors)), []).append(name)
    kept = why.pop("", [])
    if names := [name for name in lost if name not in measured]:
        why[f"and is not in {subject.folder}"] = names
    for words, names in why.items():
        say(f"evaluate: left out is what was measured before, {words}: {', '.join(names)}")
    return {name: measured[name] for name in kept}


def _assemble(subject: Subject) -> Metrics:
    """All parts that are there, of these networks and data, into `metrics.json`."""
    config = subject.config
    parts = {name: measured for name in PARTS if (measured := read_part(subject.folder, name))}
    read = archives.measured_archives(subject.folder).values()
    of_files = {part.settings["file"]: part for part in read}
    before = read_json(subject.run.metrics)
    kept = _kept(subject, parts | of_files, lost=_names(before if isinstance(before, dict) else {}))
    ours = {PARTS[name].key_of_metrics: part for name, part in kept.items() if name in PARTS}
    others = {file: part for file, part in kept.items() if file not in PARTS}
    metrics: Metrics = {key: part.figures for key, part in ours.items()}
    if others:
        metrics["archives"] = {file: part.figures for file, part in others.items()}
    priors = enumerate(subject.prior_checkpoints)
    steps = {"stage1": subject.vqvae_checkpoint.step} if subject.vqvae_checkpoint else {}
    steps |= {subject.run.stage2_of(level).name: saved.step for level, saved in priors}
    metrics["protocol"] = {
        "split": "test",
        "images": subject.sizes[1],
        "precision": config.precision,
        "seed": config.seed,
        "steps": steps,
        **subject.weights(),
        "data": asdict(config.data) | {"fingerprint": subject.data_fingerprint},
        "parts": {key: part.protocol for key, part in ours.items()},
        "archives": {file: part.protocol for file, part in others.items()},
        **versions(config.precision),
    }
    write_json(subject.run.metrics, metrics)
    return metrics


def _names(metrics: Metrics) -> list[str]:
    """The names of the parts and files of which there are figures."""
    files = metrics.get("archives")
    return [name for name, part in PARTS.items() if part.key_of_metrics in metrics] + [*(files or {})]
