"""The run directory: everything that one run of the pipeline reads and writes.

runs/NAME/
    config.yaml      every setting
    run.json         format, and for each start: version, git commit, command
    perceptual-*     the classifier that stage1.perceptual compares pictures in
    stage1/          checkpoints of the VQ-VAE
    codes/           code maps
    stage2/          checkpoints of the prior; stage2-1/ of that of the next finer level, and so on
    samples/         pictures
    completions/     pictures that were filled in
    events.out.*     what TensorBoard reads, with validation/ and by_place/ (see tracker.py), codebook/
                     and projector_config.pbtxt
    trackers.json    the runs of its stages in other trackers (see services.py)
    evaluation/      images and figures of each part of an evaluation
    metrics.json     what `evaluate` measured
"""

import json
import math
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from vqprior import configs
from vqprior.configs import Config
from vqprior.configs.errors import UserError, command_line
from vqprior.configs.schema import MOST_LEVELS

from .files import write_file, write_json
from .lock import lock, release

FORMAT = 1
BEFORE_LEARNING = frozenset((".lock", "pictures.json.gz", "skipped.txt", "damaged.txt"))
"""Files that a run may have before it has learnt anything, besides its settings."""
OF_ALL = "seed|precision|channels_last|deterministic"  # settings that every stage is trained with


@dataclass(frozen=True)
class RunDir:
    """The places in a run directory."""

    path: Path

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def record(self) -> Path:
        return self.path / "run.json"

    @property
    def stage1(self) -> Path:
        return self.path / "stage1"

    @property
    def codes(self) -> Path:
        return self.path / "codes"

    @property
    def stage2(self) -> Path:
        return self.stage2_of(0)

    def stage2_of(self, level: int) -> Path:
        """Of the prior of a level, 0 being the coarsest."""
        return self.path / (f"stage2-{level}" if level else "stage2")

    def begun_priors(self) -> list[int]:
        """The levels whose priors have begun, in whatever order."""
        return [level for level in range(MOST_LEVELS) if self.stage2_of(level).exists()]

    @property
    def has_begun(self) -> bool:
        """Whether any stage has: settings of it are fixed then."""
        return self.stage1.exists() or self.codes.exists() or bool(self.begun_priors())

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    def config(self) -> Config:
        """The stored configuration.

        Raises:
            UserError: this is no run directory, one of a newer format, or one with settings that are none.
        """
        if not self.config_file.is_file():
            raise UserError(
                f"{self.path} is not a run directory: it has no config.yaml. "
                "Start one with a preset: vqprior run mnist5k"
            )
        self.starts()
        try:
            return configs.from_tree(configs.read_yaml(self.config_file))
        except SystemExit as error:  # the parser has said what is wrong with a setting
            raise UserError(
                f"the settings of {self.path} (config.yaml) are not of this version of vqprior: upgrade it, "
                "mend what was written into the file, or begin a new run with --out"
            ) from error

    def command(self) -> str:
        """What was typed to start the run the last time."""
        starts = self.starts()
        return shlex.join(["vqprior", *starts[-1]["command"]]) if starts else ""

    def starts(self) -> list[dict[str, Any]]:
        """Version, commit and command of each start so far.

        Raises:
            UserError: the record of them is damaged, or of a newer format.
        """
        if not self.record.is_file():
            return []
        try:
            tree = json.loads(self.record.read_text())
            if tree["format"] > FORMAT:
                raise UserError(
                    f"{self.path} has format {tree['format']}, this version reads up to {FORMAT}: upgrade "
                    "vqprior"
                )
            return list(tree["starts"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.record} is damaged ({error}); restore it from a copy, or delete it: it only tells "
                "how the run began"
            ) from error


def is_run_dir(path: Path) -> bool:
    """Whether a run was ever started there."""
    return (path / "config.yaml").is_file()


def checkpoint_folders(folder: Path) -> list[Path]:
    """The checkpoints of a stage, the earliest first; step-00001000 is that of step 1,000."""
    return sorted(path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdigit())


def rank_of(score: float) -> tuple[bool, float]:
    """Where a checkpoint's score stands among others, the best first: the lowest, and one that is not a
    number, of weights that ran away, behind all that are; `min` alone would take it."""
    is_no_number = math.isnan(score)
    return is_no_number, 0.0 if is_no_number else score


def existing(config: Config) -> RunDir:
    """The run directory of a step that begins no run and changes no setting.

    Raises:
        UserError: no run was ever started there.
    """
    run = RunDir(Path(config.out))
    if not is_run_dir(run.path):
        raise UserError(
            f"there is no run in {run.path} yet; begin with `vqprior train-vqvae` or `vqprior run`"
        )
    return run


class Before(NamedTuple):
    """What a run directory was like before a command began it, or went on with it."""

    there: bool
    config: str | None
    record: str | None
    made: list[str]  # by then, see `_made`


def start(config: Config) -> Before:
    """Open the run directory `config.out`, made where there is none, and record this start in it; what it was
    before, for `take_back`.

    Fields of a stage that has begun are fixed (see `configs.OPEN_FIELDS` for those that never are).

    Raises:
        UserError: the configuration contradicts what the run was begun with.
    """
    run = RunDir(Path(config.out))
    there = run.path.is_dir()
    if run.config_file.is_file():
        refuse_contradictions(run, config)
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the run directory {run.path} cannot be made: {error.strerror}; give another one with --out"
        ) from error
    lock(run.path)
    text = lambda file: file.read_text() if file.is_file() else None
    before = Before(there, text(run.config_file), text(run.record), _made(run))
    write_start(run, config)
    return before


def take_back(run: RunDir, before: Before) -> None:
    """Leave the settings as they were before a command that was refused; one that has made something by then,
    or begun to train, keeps them."""
    if _made(run) != before.made:
        return
    with suppress(OSError):  # what was refused is the message that matters
        for file, content in ((run.config_file, before.config), (run.record, before.record)):
            if content is None:
                file.unlink(missing_ok=True)
            else:
                write_file(file, content)
        if not before.there and {path.name for path in run.path.iterdir()} <= BEFORE_LEARNING:
            shutil.rmtree(run.path)
            release(run.path)


def _made(run: RunDir) -> list[str]:
    """All that lies in a run directory but its settings and what precedes learning, with the checkpoints, and
    the time of the code maps."""
    passed_over = BEFORE_LEARNING | {run.config_file.name, run.record.name}
    header = run.codes / "header.json"
    codes = [str(header.stat().st_mtime_ns)] if header.is_file() else []
    names = {path.name for path in run.path.iterdir()} - passed_over
    return codes + sorted(names) + sorted(str(path) for path in run.path.glob("stage*/step-*"))


def write_start(run: RunDir, config: Config) -> None:
    """Record a start in a run directory that is there, and its settings."""
    this = {"version": package_version(), "commit": git_commit(), "command": sys.argv[1:]}
    starts = [*run.starts(), this]
    write_file(run.config_file, configs.dump(config))
    write_json(run.record, {"format": FORMAT, "starts": starts})


def refuse_contradictions(run: RunDir, config: Config, *, but: str | None = None) -> None:
    """Compare with the stored configuration; `but` names a field that may differ here.

    Raises:
        UserError: a field of a stage that has begun differs.
    """
    stored, priors = run.config(), run.begun_priors()
    fixed = [config.stage2_of(level).SECTION for level in priors]
    if run.stage1.exists() or priors:
        fixed.append(OF_ALL)
    if run.stage1.exists() or run.codes.exists():  # imported codes have no stage one, and are what they are
        fixed.append("data|stage1")
    changed = configs.differences(stored, config, "|".join(fixed)) if fixed else []
    changed = [words for words in changed if not (but and words.startswith(f"{but} "))]
    moving = config.stage1.train == "all"
    if priors and moving and stored.stage1.steps != config.stage1.steps:
        both = f"stage1.steps is {stored.stage1.steps} there and {config.stage1.steps} now"
        changed.append(f"{both}, and the prior has learnt from its codes")
    if changed:
        begun = command_line("train-prior" if stored.data.source == "codes" else "run", run.path)
        alone = "" if but else f"or leave them out and name the run alone, as in {begun}, "
        raise UserError(
            f"{run.path} was begun with other settings: {'; '.join(changed)}. "
            f"Type the same settings to resume it, {alone}or --out with another folder for a new run"
        )


def package_version() -> str:
    """The installed version of vqprior."""
    try:
        return version("vqprior")
    except PackageNotFoundError:
        return "not installed"


@cache
def git_commit() -> str | None:
    """The commit of the code that runs, with a + where the work tree differs from it; None outside a
    checkout.

    Asked once: a checkout may move while what was loaded from it goes on. Nothing is written into it: git's
    index, which `describe --dirty` refreshes, would stay locked where the disk is full.
    """
    here = Path(__file__)
    git = ["git", "--no-optional-locks", "-C", str(here.parent)]
    asked = dict(capture_output=True, text=True, timeout=10, check=True)
    try:
        # an installed package may lie in the work tree of another project, which does not track it
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], **asked)
        said = subprocess.run([*git, "rev-parse", "--short", "HEAD"], **asked).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no"], **asked).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{said}+" if changed else said
