"""Checkpoints: a folder a step, written whole or not at all, verified by checksums, holding no pickle.

step-00001000/
    manifest.json            format, step, score, all that rebuilds the model, sha256 of the files below
    model.safetensors        weights and buffers
    average.safetensors      their moving average, where one is kept
    optimizer.safetensors    Adam's moments
    adversary.safetensors    the network beside stage one's, where there is one, and adversary_optimizer
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from safetensors.torch import save as as_bytes
from torch import Tensor, nn

from vqprior.configs.errors import UserError

from .files import TEMPORARY, remove_folder, sha256, sync_file, write_folder, write_json
from .run_dir import checkpoint_folders, rank_of

FORMAT = 1
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk; tensors are read when they are asked for."""

    path: Path
    step: int
    score: float | None  # on the validation split, less is better; None where this step was not evaluated
    meta: dict[str, Any]
    files: dict[str, str]  # name -> sha256

    def tensors(self, name: str) -> Tensors:
        """The tensors of one file, by name, on the CPU.

        Raises:
            UserError: there is no such file, or it is not one of tensors; nothing in it is ever executed.
        """
        if not self.has(name):
            raise UserError(
                f"{self.path} has no {name}: it was written by `vqprior export`, to sample and not to train "
                "from"
            )
        file = self.path / f"{name}.safetensors"
        try:
            return load_file(file)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{file} is damaged: {error}") from error

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return f"{name}.safetensors" in self.files

    @property
    def weights(self) -> str:
        """The file that evaluation and sampling use: the averaged weights where there are any."""
        return "average" if self.has("average") else "model"

    @property
    def megabytes(self) -> float:
        """Size of that file, in MB."""
        return (self.path / f"{self.weights}.safetensors").stat().st_size / 2**20

    @property
    def fingerprint(self) -> str:
        """What binds code maps and priors to this checkpoint: the checksum of the weights that are used."""
        return self.files[f"{self.weights}.safetensors"]


def fingerprint_of(tensors: Tensors) -> str:
    """The fingerprint of tensors by name: a function of these alone, in whatever order they come."""
    return hashlib.sha256(as_bytes(_plain(tensors))).hexdigest()


def _plain(tensors: Tensors) -> Tensors:
    """The tensors as safetensors takes them."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def load_into(model: nn.Module, tensors: Tensors, saved: Checkpoint) -> None:
    """Give a model weights of a checkpoint.

    Raises:
        UserError: they are not those of such a model.
    """
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise of_another_version(saved) from error


def of_another_version(saved: Checkpoint) -> UserError:
    """What to raise of tensors that have no place here."""
    return UserError(
        f"the tensors of {saved.path} are not those of this version of vqprior: begin a new run with --out, "
        "or take the version that wrote it (run.json has the commits)"
    )


def write_tensors(file: Path, tensors: Tensors) -> None:
    """Write tensors by name, and wait until they are on the disk; raises OSError where it is full."""
    file.touch()
    mode = file.stat().st_mode
    try:
        # lets other threads run, unlike `save`, which holds Python for seconds
        save_file(_plain(tensors), file)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else 0, str(error), str(file)) from error
    file.chmod(mode)  # safetensors 0.8 leaves a file that its owner alone can read
    sync_file(file)


def save(
    folder: Path, step: int, tensors: dict[str, Tensors], meta: dict[str, Any], score: float | None
) -> None:
    """Write the checkpoint of a step into a folder of checkpoints; `tensors` maps file names to their
    tensors."""

    def fill(temporary: Path) -> None:
        files = {}
        for name, content in tensors.items():
            file = temporary / f"{name}.safetensors"
            write_tensors(file, content)
            files[file.name] = sha256(file)
        write_json(
            temporary / "manifest.json",
            {"format": FORMAT, "step": step, "score": score, "meta": meta, "files": files},
        )

    folder.mkdir(parents=True, exist_ok=True)
    write_folder(folder / f"step-{step:08d}", fill)


def read(path: Path, *, verify: bool = True) -> Checkpoint:
    """The checkpoint in a folder.

    Raises:
        UserError: something is missing, damaged, or of a newer format.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        if manifest["format"] > FORMAT:
            raise UserError(
                f"{path} has format {manifest['format']}, this version reads up to {FORMAT}: upgrade vqprior"
            )
        checkpoint = Checkpoint(path, *(manifest[name] for name in ("step", "score", "meta", "files")))
        if not (isinstance(checkpoint.meta, dict) and isinstance(checkpoint.files, dict)):
            raise ValueError("meta and files are no tables")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the checkpoint {path} cannot be read: its manifest is missing or damaged ({error})"
        ) from error
    for name, digest in checkpoint.files.items():
        file = path / name
        if not file.is_file():
            raise UserError(f"the checkpoint {path} is damaged: {name} is missing")
        if verify and sha256(file) != digest:
            raise UserError(f"the checkpoint {path} is damaged: {name} does not match its checksum")
    return checkpoint


def best_of(checkpoints: Iterable[Checkpoint]) -> Checkpoint | None:
    """The one with the lowest score (see `rank_of`), the latest of equals; None where none has a score."""
    scored = [saved for saved in checkpoints if saved.score is not None]
    return min(scored, key=lambda saved: (rank_of(saved.score), -saved.step), default=None)


def is_evaluated(folder: Path) -> bool:
    """Whether a folder has a checkpoint with a score, so that there is a best one."""
    return best_of(readable(folder)) is not None


def refuse_unevaluated(saved: Checkpoint, section: str, steps: int) -> None:
    """Refuse, with a UserError, to be done with a training of which no checkpoint was evaluated: none of them
    could be used.

    Args:
        saved: its latest checkpoint.
        section: of its settings.
        steps: that are asked for, no more than are done.
    """
    if not is_evaluated(saved.path.parent):
        raise UserError(
            f"{section}.steps is {steps}, and {saved.path} was written before the first evaluation, so that "
            f"there is nothing to go on with; type --{section}.steps {saved.step + 1} or more, and the last "
            "step is evaluated"
        )


def newest(folder: Path, warn: Callable[[str], None] = print) -> Checkpoint | None:
    """The latest intact checkpoint of a folder, None where there never was one; damaged ones are named to
    `warn`.

    Raises:
        UserError: there are checkpoints, but all are damaged.
    """
    paths = checkpoint_folders(folder)
    for path in reversed(paths):
        try:
            return read(path)
        except UserError as error:
            warn(f"{error}; trying the one before")
    if paths:
        raise UserError(
            f"every checkpoint in {folder} is damaged; restore one from a copy, or delete the folder to "
            "start over"
        )
    return None


def readable(folder: Path) -> Iterator[Checkpoint]:
    """The checkpoints of a folder, the latest first; tensors are not verified, damaged ones passed over."""
    for path in reversed(checkpoint_folders(folder)):
        try:
            yield read(path, verify=False)
        except UserError:
            continue


def best(folder: Path) -> Checkpoint:
    """The checkpoint of a folder with the lowest score, the latest of equals.

    Raises:
        UserError: there is none, or it is damaged.
    """
    saved = best_of(readable(folder))
    if saved is None:
        command = "train-vqvae" if folder.name == "stage1" else "train-prior"
        raise UserError(
            f"there is no evaluated checkpoint in {folder}; train that stage first: "
            f"vqprior {command} {folder.parent}"
        )
    return read(saved.path)


def prune(folder: Path, keep: int) -> None:
    """Delete all checkpoints but the latest `keep` and the best one."""
    paths = checkpoint_folders(folder)
    best_one = best_of(readable(folder))
    staying = {*paths[-keep:], best_one and best_one.path}
    for path in paths:
        if path not in staying:
            remove_folder(path)
    for leftover in folder.glob(f"step-*{TEMPORARY}"):  # of a kill in the middle of a save or a deletion
        shutil.rmtree(leftover, ignore_errors=True)
