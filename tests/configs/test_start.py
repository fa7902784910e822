"""Every preset starts: one step of both stages of its own networks, on a few made-up pictures."""

import pytest

from tests.conftest import write_pictures
from vqprior import configs

ONE_STEP = "--stage1.steps 1 --stage1.batch_size 2 --stage1.codebook.kmeans False"
ONE_STEP += " --stage2.steps 1 --stage2.batch_size 2"
FEW = "--data.source folder --data.validation 0.2 --data.test 0.2 --data.workers 0 --sample.images 2"
FEW += " --sample.batch_size 2"
FEW += " --inference_batch 2 --data.crop 0"  # the pictures are smaller than CelebA's


@pytest.mark.parametrize("name", [name for name in configs.preset_names() if name != "imagenet128"])
def test_preset_starts(name, tmp_path, command):
    root = write_pictures(tmp_path / "pictures", 12)
    code, printed = command(
        "run", name, *ONE_STEP.split(), *FEW.split(), "--data.root", root, "--out", tmp_path / "run"
    )
    assert code == 0, printed


def test_the_large_preset_starts(tmp_path, command):
    """ImageNet's, whose prior takes a minute to draw on a CPU: stage one only."""
    root = write_pictures(tmp_path / "pictures", 12)
    flags = [*ONE_STEP.split(), *FEW.split(), "--data.root", root, "--out", tmp_path / "run"]
    code, printed = command("train-vqvae", "imagenet128", *flags)
    assert code == 0, printed
