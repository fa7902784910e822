"""What to type next: of every command, so that it works as it is printed; torch is not waited for."""

import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from vqprior.configs import OPEN_FIELDS, as_flags, flatten
from vqprior.configs.commands import Check, EncodePictures, OtherPictures
from vqprior.configs.errors import command_line
from vqprior.configs.schema import Data
from vqprior.runtime import devices
from vqprior.runtime.run_dir import RunDir

from .doctor import requirements

Words = tuple[object, ...]
"""A command and its arguments, without `vqprior` and without quotation marks."""


def next_line(*words: object) -> str:
    """The line that says what to type next, as a shell takes it, for the device of the command at hand."""
    device = [] if devices.chosen() == devices.AUTO else ["--device", devices.chosen()]
    return f"next: {command_line(*words, *device)}"


def to_begin() -> Words:
    """A first run, of the digits in a package, where that is installed."""
    return ("run", "mnist5k") if has("demo") else ("--help",)


def after_training(run: RunDir, levels: int) -> Words:
    """The first that a run lacks of code maps and the priors of its levels, else samples."""
    if not run.codes.is_dir() or (not run.begun_priors() and _other_codes(run)):
        return "encode", run.path
    return "sample" if _has_priors(run, levels) else "train-prior", run.path


def after_sampling(run: RunDir, out: Path) -> Words:
    """To measure the run; one without code maps or pictures, such as an export, is only looked at, with other
    samples beside those in `out`."""
    from vqprior.runtime.code_maps import are_elsewhere

    measured = run.codes.is_dir() and not are_elsewhere(run.config().data)
    return to_measure(run) if measured else to_play(run, free(out, "2"))


def to_measure(run: RunDir) -> Words:
    """The figures of a run, whose samples are to be of all classes."""
    return "evaluate", run.path, *(["--sample.label", ""] if run.config().sample.label else [])


def after_measuring(run: RunDir, data: Data, levels: int) -> Words:
    """The page of a run, of its pictures where they are now, else what can be shared of it; the next step
    where stage one was measured alone."""
    moved, step = _moved(run.config().data, data), after_training(run, levels)
    if step[0] != "sample":
        return *step, *moved
    if not has("report") or data.source == "codes":
        return to_share(run)
    return "report", run.path, *moved


def after_encoding(run: RunDir, settings: EncodePictures, levels: int) -> Words:
    """How unusual the same pictures are, where the run is trained for it."""
    if not _has_priors(run, levels):
        return after_training(run, levels)
    if not run.codes.is_dir():  # an export: it cannot say what is usual
        return to_play(run)
    read = {
        field.name: value
        for field in fields(OtherPictures)
        if (value := getattr(settings, field.name)) != field.default
    }
    return "score", run.path, *as_flags(read), "--out", free(Path(settings.out), "scores")


def after_checking(config: Check, target: str, default: Check, settings: dict[str, Any]) -> Words:
    """To begin with the preset that was written, or with the target and the settings that were typed behind
    it or suggested; a run that was begun goes on."""
    elsewhere = () if config.out == default.out else ("--out", Path(config.out))
    if config.write:
        return "run", Path(config.write), *elsewhere
    if RunDir(Path(config.out)).has_begun:
        return "run", Path(config.out), *_moved(default.data, config.data)
    return "run", target, *as_flags(settings), *elsewhere


def to_share(run: RunDir) -> Words:
    """An export."""
    return "export", run.path, "--out", free(run.path, "export")


def to_play(run: RunDir, out: Path | None = None) -> Words:
    """The page in the browser where Gradio is installed, else other samples, in `out` or beside the run."""
    others = "sample", run.path, "--seed", 1, "--out", out or free(run.path, "samples")
    return ("app", run.path) if has("app") else others


def _moved(before: Data, now: Data) -> list[str]:
    """The flags for pictures that are read from elsewhere than before, or otherwise, as a run may."""
    old, new = (flatten({"data": asdict(data)}) for data in (before, now))
    open_to_change = (name for name in new if re.fullmatch(OPEN_FIELDS, name))
    return as_flags({name: new[name] for name in open_to_change if new[name] != old[name]})


def _other_codes(run: RunDir) -> bool:
    """Whether the code maps are of another checkpoint of stage one than its best, as after more steps."""
    from vqprior.runtime import checkpoint, code_maps
    from vqprior.runtime.lineage import encodes_as

    header = code_maps.read_header(run.codes)
    best = checkpoint.best_of(checkpoint.readable(run.stage1))
    return bool(header and best) and header.vqvae != encodes_as(best)["vqvae"]


def _has_priors(run: RunDir, levels: int) -> bool:
    """Whether the prior of each level has a checkpoint to draw from."""
    from vqprior.runtime import checkpoint

    return all(checkpoint.is_evaluated(run.stage2_of(level)) for level in range(levels))


def has(extra: str) -> bool:
    """Whether an extra of vqprior is installed."""
    needs = [need for need in requirements("vqprior") if need.extra == extra]
    return bool(needs) and not any(need.problem() for need in needs)


def free(path: Path, name: str) -> Path:
    """A path beside another that nothing has: PATH-NAME, or with a number behind it."""
    place = beside = Path(f"{path.resolve() if path.name in ('', '..') else path}-{name}")
    number = 1
    while place.exists():
        number += 1
        place = Path(f"{beside}-{number}")
    return place
