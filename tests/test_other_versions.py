"""What another version of vqprior wrote, such as a commit before the first release, is refused in words."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import TINY
from vqprior.runtime import checkpoint
from vqprior.runtime.checkpoint import Tensors

WORDS = "are not those of this version of vqprior: begin a new run with --out, or take the version that wrote"


def numbered(tensors: Tensors) -> Tensors:
    """Moments by numbers in place of names."""
    return {f"{index}.{name.rpartition('.')[2]}": x for index, (name, x) in enumerate(tensors.items())}


def of_one_level(tensors: Tensors) -> Tensors:
    """A VQ-VAE that knows no levels."""
    return {name.replace("quantizers.0.", "quantizer."): x for name, x in tensors.items()}


def of_layers(tensors: Tensors) -> Tensors:
    """A prior whose layers have class biases of their own."""
    return {name.replace("label_bias", "layers.0.label_bias"): x for name, x in tensors.items()}


KINDS = {
    "a VQ-VAE": ("stage1", "model", of_one_level, ["train-vqvae", "--stage1.steps", 6]),
    "its moments": ("stage1", "optimizer", numbered, ["train-vqvae", "--stage1.steps", 6]),
    "a prior": ("stage2", "model", of_layers, ["train-prior", "--stage2.steps", 6]),
    "its average": ("stage2", "average", of_layers, ["sample"]),
    "its moments, too": ("stage2", "optimizer", numbered, ["train-prior", "--stage2.steps", 6]),
}


@pytest.fixture
def run(finished_run, tmp_path) -> Path:
    return shutil.copytree(finished_run, tmp_path / "run")


def rewrite(folder: Path, file: str, change: Callable[[Tensors], Tensors], **meta: str) -> None:
    """Write all checkpoints of a stage anew, with one of their files and some of their meta changed."""
    for saved in [*checkpoint.readable(folder)]:
        tensors = {name: saved.tensors(name) for name in (Path(kept).stem for kept in saved.files)}
        tensors[file] = change(tensors[file])
        checkpoint.save(folder, saved.step, tensors, saved.meta | meta, saved.score)


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_of_another_version_are_refused(run, command, kind):
    stage, file, change, (name, *flags) = KINDS[kind]
    rewrite(run / stage, file, change)
    if stage == "stage1":  # else it stays where its codes were learnt
        shutil.rmtree(run / "stage2")
        shutil.rmtree(run / "codes")
    code, printed = command(name, run, *flags)
    assert code == 2 and WORDS in " ".join(printed.split()), printed


def test_pictures_that_a_checkpoint_knows_by_another_name_are_refused(run, command):
    rewrite(run / "stage1", "model", lambda tensors: tensors, data_fingerprint="0" * 64)
    shutil.rmtree(run / "stage2")
    shutil.rmtree(run / "codes")
    for name, *flags in (["encode"], ["train-vqvae", "--stage1.steps", 6]):
        code, printed = command(name, run, *flags)
        assert code == 2 and "or by another version of vqprior; put them back" in printed, printed


@pytest.mark.parametrize("flags", [["--n", "3"], ["--stage1.decay", "0.9"], ["--stage1.codebook", "ema"]])
def test_names_that_settings_had_before_are_unknown(tmp_path, command, flags):
    code, printed = command("run", "folder", *TINY, *flags, "--out", tmp_path / "run")
    assert code == 2 and f"Unrecognized options: {flags[0]}" in printed, printed
    assert not (tmp_path / "run").exists()
