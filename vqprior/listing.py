"""`vqprior ls`: runs with their state, steps and figures, from their files alone: torch is not waited for."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from vqprior.configs import Config, read_yaml
from vqprior.configs.errors import UserError
from vqprior.runtime.files import read_json
from vqprior.runtime.lock import is_locked
from vqprior.runtime.run_dir import RunDir, checkpoint_folders, is_run_dir, rank_of

from .onward import next_line

State = Literal["running", "stopped", "trained", "export", "unreadable"]
"""running: a process holds it; stopped: steps are missing, and the same command goes on; trained: all steps
are done; export: weights alone, of `vqprior export`; unreadable: what is wrong stands behind it."""

HEADINGS = ("run", "state", "stage 1", "stage 2", "figures")
NONE = "-"
Manifest = dict[str, Any]
"""What the manifest.json of a checkpoint says."""


@dataclass(frozen=True)
class Stage:
    """How far a training loop is."""

    step: int  # of its latest checkpoint, 0 where there is none
    steps: int

    def __str__(self) -> str:
        return f"{self.step:,}/{self.steps:,}"


@dataclass(frozen=True)
class Plan:
    """The steps that the settings of a run ask for.

    Read from the YAML as it stands: all checks of all fields would take a tenth of a second a run.
    """

    stage1: int
    priors: tuple[int, ...]  # of each level of codes, coarsest first
    imported: bool  # there is no stage one: the codes came from elsewhere
    moving: bool = True  # the codes, as stage one learns: once a prior has begun it stays where it is

    @classmethod
    def of(cls, run: RunDir) -> Self:
        """The plan of a run.

        Raises:
            UserError: its settings are not YAML, or a number of steps is not one.
        """
        tree, default = read_yaml(run.config_file), asdict(Config())

        def number(section: str, name: str) -> int:
            given = tree.get(section) or {}
            value = given.get(name, default[section][name]) if isinstance(given, dict) else given
            if not isinstance(value, int):
                raise UserError(f"{run.config_file} has {section}.{name} {value!r}; expected a number")
            return value

        finer = range(1, number("stage1", "levels"))
        priors = number("stage2", "steps"), *(number("stage2_fine", "steps") for _ in finer)
        data, stage1 = (x if isinstance(x := tree.get(name), dict) else {} for name in ("data", "stage1"))
        imported, moving = data.get("source") == "codes", stage1.get("train") != "decoder"
        return cls(number("stage1", "steps"), priors, imported, moving)


@dataclass(frozen=True)
class Summary:
    """What is shown of a run."""

    path: Path
    state: State
    stage1: Stage | None = None  # None: its codes are imported, or it is unreadable
    priors: tuple[Stage, ...] = ()  # of each level of codes, coarsest first
    figures: str = ""

    def cells(self) -> tuple[str, ...]:
        """A line of the table."""
        stage1 = str(self.stage1 or NONE)
        return str(self.path), self.state, stage1, " + ".join(map(str, self.priors)) or NONE, self.figures


def show(folder: Path) -> str:
    """The runs in a folder, as the text of a table.

    Raises:
        UserError: there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a folder; give one that holds runs: vqprior ls FOLDER. "
            "A first run is begun with: vqprior run mnist5k"
        )
    summaries = [summary_of(path) for path in find_runs(folder)]
    if not summaries:
        raise UserError(f"there is no run in {folder}; begin one with: vqprior run mnist5k")
    return "\n".join([*_table([HEADINGS, *(run.cells() for run in summaries)]), *_next_words(summaries)])


def find_runs(folder: Path) -> Iterator[Path]:
    """The run directories of a folder by name: itself, those in it, and those one folder below.

    What a run holds is not looked through: it may have a million pictures. Folders that may not be read are
    passed over.
    """
    if is_run_dir(folder):
        yield folder
        return
    for child in sorted(path for path in folder.iterdir() if path.is_dir()):
        try:
            own = is_run_dir(child)
            found = [child] if own else sorted(file.parent for file in child.glob("*/config.yaml"))
        except PermissionError:
            continue
        yield from found


def summary_of(path: Path) -> Summary:
    """What the files of a run say; a run that cannot be read is no error here, but a line of the list."""
    run = RunDir(path)
    try:
        run.starts()
        plan = Plan.of(run)
    except (UserError, OSError) as error:
        return Summary(path, "unreadable", figures=str(error))
    stage1 = None if plan.imported else Stage(_latest(run.stage1), plan.stage1)
    priors = tuple(Stage(_latest(run.stage2_of(level)), steps) for level, steps in enumerate(plan.priors))
    stays = plan.imported or (plan.moving and run.begun_priors())
    stages = [*priors] if stays else [stage1, *priors]
    return Summary(path, _state(run, stages), stage1, priors, figures(run))


def _latest(folder: Path) -> int:
    """The step of the latest checkpoint, 0 where there is none."""
    return max((int(path.name.removeprefix("step-")) for path in checkpoint_folders(folder)), default=0)


def _state(run: RunDir, stages: list[Stage]) -> State:
    if is_locked(run.path):
        return "running"
    saved = checkpoint_folders(run.stage2)
    if saved and not (saved[-1] / "optimizer.safetensors").exists():
        return "export"
    return "trained" if all(stage.step >= stage.steps for stage in stages) else "stopped"


def figures(run: RunDir) -> str:
    """What `evaluate` measured on test pictures of the weights that there are now; before that the best bits
    on the validation split."""
    metrics = read_json(run.metrics)
    priors = [_best(_manifests(run.stage2_of(level))) for level in run.begun_priors()]
    are_of_these = isinstance(metrics, dict) and _are_of(metrics, _vqvae(run, priors), priors)
    return ", ".join((_measured(metrics) if are_of_these else []) or _validated(priors))


def _measured(metrics: dict[str, Any]) -> list[str]:
    """The figures of metrics.json that decide, with their units."""
    psnr = _at(metrics, "stage1", "psnr")
    bits = _at(metrics, "stage2", "bits_per_code")
    distance = _at(metrics, "ladder", "rows", "samples", "frechet")
    found = []
    if psnr is not None:
        found.append(f"PSNR {psnr:.2f} dB")
    if bits is not None:
        found.append(f"{bits:.3f} bits/code")
    if distance is not None:
        name = metrics["ladder"].get("distance")
        found.append(f"{name if isinstance(name, str) else 'distance'} {distance:.3g}")
    return found


def _under(tree: Any, *keys: str) -> Any:
    """What is under these keys, None where there is nothing."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _at(tree: Any, *keys: str) -> float | None:
    """The number under these keys, None where there is none."""
    found = _under(tree, *keys)
    return float(found) if isinstance(found, int | float) else None


def _are_of(metrics: dict[str, Any], vqvae: Manifest, priors: list[Manifest]) -> bool:
    """Whether figures are of this VQ-VAE and these priors, which may have been trained on since; what they
    do not note is not compared, as in `evaluation/weights.py`."""
    vqvae_noted, prior, finer = (
        _under(metrics, "protocol", name) for name in ("vqvae", "prior", "finer_priors")
    )
    noted = [vqvae_noted, prior, *(finer if isinstance(finer, list) else [])]
    pairs = zip(noted, map(_fingerprint, [vqvae, *priors]), strict=False)
    return all(there == here for there, here in pairs if there and here)


def _fingerprint(manifest: Manifest) -> str | None:
    """The checksum of the weights of a checkpoint that are used; see `Checkpoint.fingerprint`."""
    average, model = (_under(manifest, "files", f"{name}.safetensors") for name in ("average", "model"))
    return average or model


def _vqvae(run: RunDir, priors: list[Manifest]) -> Manifest:
    """The manifest of the VQ-VAE that is used with these priors: the best of those whose codes they learnt,
    whose decoder alone may have been trained on (see `vqvae_of`); without priors of those that the code maps
    are of, else of all."""
    codes = _under(next(iter(priors), {}), "meta", "codes", "vqvae")
    codes = codes or _under(read_json(run.codes / "header.json"), "vqvae")
    codes_of = lambda saved: _under(saved, "meta", "encodes_as", "vqvae") or _fingerprint(saved)
    return _best([saved for saved in _manifests(run.stage1) if codes in (None, codes_of(saved))])


def _validated(best: list[Manifest]) -> list[str]:
    """The best bits/code on the validation split, of each level that has been evaluated."""
    scores = (_at(manifest, "score") for manifest in best)
    bits = " + ".join(f"{score:.3f}" for score in scores if score is not None)
    return [f"validation {bits} bits/code"] if bits else []


def _manifests(folder: Path) -> list[Manifest]:
    """The manifests of a stage's checkpoints, the latest first; damaged ones are passed over."""
    read = (read_json(path / "manifest.json") for path in reversed(checkpoint_folders(folder)))
    return [manifest for manifest in read if isinstance(manifest, dict)]


def _best(manifests: list[Manifest]) -> Manifest:
    """The one with the lowest score, the first of equals; an empty one where there is none."""
    scored = [manifest for manifest in manifests if _at(manifest, "score") is not None]
    return min(scored, key=lambda manifest: rank_of(manifest["score"]), default={})


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows as lines, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return ["  ".join(row).rstrip() for row in cells]


def _next_words(runs: list[Summary]) -> list[str]:
    """What to type next, for the first run that is stopped and the first that is trained."""
    words = []
    if stopped := next((run for run in runs if run.state == "stopped"), None):
        command = "run" if stopped.stage1 else "train-prior"
        words.append(next_line(command, stopped.path))
    if trained := next((run for run in runs if run.state == "trained"), None):
        words.append(next_line("sample", trained.path))
    return ["", *words] if words else []
