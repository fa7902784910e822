"""Every preset starts: one step of both stages of its own networks, on a few made-up pictures."""

import pytest

from tests.conftest import write_pictures
from vqprior import configs

ONE_STEP = "--stage1.steps 1 --stage1.batch_size 2 --stage1.codebook.kmeans False"
ONE_STEP += " --stage2.steps 1 --stage2.batch_size 2"
ONE_STEP_FINE = "--stage2_fine.steps 1 --stage2_fine.batch_size 2"
FEW = "--data.source folder --data.validation 0.2 --data.test 0.2 --data.workers 0 --sample.images 2"
FEW += " --sample.batch_size 2"
FEW += " --inference_batch 2 --data.crop 0"  # the pictures are smaller than CelebA's

LARGE = ["imagenet128", "ffhq256", "imagenet256"]
"""Presets whose maps take a minute and more to draw on a CPU."""


def few(name: str) -> list[str]:
    """Flags that make a preset's work one step, and leave its networks as they are."""
    levels = configs.parse(configs.find_preset(name), []).stage1.levels
    return [*ONE_STEP.split(), *(ONE_STEP_FINE.split() if levels > 1 else []), *FEW.split()]


@pytest.mark.parametrize("name", [name for name in configs.preset_names() if name not in LARGE])
def test_preset_starts(name, tmp_path, command):
    root = write_pictures(tmp_path / "pictures", 12)
    code, printed = command("run", name, *few(name), "--data.root", root, "--out", tmp_path / "run")
    assert code == 0, printed
    levels = configs.parse(configs.find_preset(name), []).stage1.levels
    assert len([*(tmp_path / "run").glob("stage2*")]) == levels


@pytest.mark.parametrize("name", LARGE)
def test_a_large_preset_starts(name, tmp_path, command):
    """Stage one only."""
    root = write_pictures(tmp_path / "pictures", 12)
    code, printed = command("train-vqvae", name, *few(name), "--data.root", root, "--out", tmp_path / "run")
    assert code == 0, printed
