"""Every kind of prior through the commands; of two levels, each may have another."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import TINY, write_pictures
from tests.stage2_prior.every_prior import KINDS
from vqprior import Generator

SMALL = {
    "gated_pixelcnn": [],
    "pixelsnail": ["--stage2.pixelsnail.blocks", 2, "--stage2.pixelsnail.heads", 2],
    "transformer": ["--stage2.transformer.heads", 2],
}
FLAGS = ["--stage2.label_dropout", 0.3, "--sample.guidance", 2.0, "--stage2.learning_rate", 0.1]
FLAGS += ["--stage2.average", 0.5, "--stage2.dropout", 0.2, "--stage1.codes_per_position", 2]
every_kind = pytest.mark.parametrize("kind", KINDS)


def flags_of(kind: str, pictures: Path) -> list[object]:
    return [*TINY, *FLAGS, "--stage2.prior", kind, *SMALL.get(kind, []), "--data.root", pictures]


@every_kind
def test_it_trains_samples_completes_evaluates_and_goes_on_bit_for_bit(kind, tmp_path, command):
    pictures, run = write_pictures(tmp_path / "pictures"), tmp_path / "run"
    code, printed = command("run", "folder", *flags_of(kind, pictures), "--out", run)
    assert code == 0, printed

    # Stopped half-way, it ends with the same weights and moments
    parts = tmp_path / "parts"
    shutil.copytree(run, parts)
    shutil.rmtree(parts / "stage2" / "step-00000004")
    code, printed = command("train-prior", parts)
    assert code == 0, printed
    for file in (run / "stage2" / "step-00000004").glob("*.safetensors"):
        ours = load_file(parts / "stage2" / "step-00000004" / file.name)
        assert all(torch.equal(value, ours[name]) for name, value in load_file(file).items()), file.name

    # It draws the same from an export, in any batch, and its figures are there
    generator = Generator.from_run(run)
    images = generator.sample(5, seed=3)
    assert np.array_equal(generator.sample(5, seed=3, batch_size=2), images) and len(np.unique(images)) > 1
    code, printed = command("export", run, "--out", tmp_path / "shared")
    assert code == 0, printed
    assert np.array_equal(Generator.from_run(tmp_path / "shared").sample(5, seed=3), images)
    assert (generator.log2_prob(images, "ant") < 0).all()
    picture = next((pictures / "ant").iterdir())
    code, printed = command("complete", run, "--image", picture, "--hide", "lower half", "--label", "ant")
    assert code == 0, printed
    code, printed = command("score", run, "--pictures", pictures / "ant", "--out", tmp_path / "found")
    assert code == 0, printed
    code, printed = command("evaluate", run, "--images", 4, "--classifier_steps", 2)
    assert code == 0, printed
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["stage2"]["bits_per_code"] > 0 and {"ladder", "labels", "copies"} <= metrics.keys()


@every_kind
def test_it_begins_from_a_prior_of_its_kind_and_from_no_other(kind, tmp_path, command):
    pictures, run, more = write_pictures(tmp_path / "pictures"), tmp_path / "run", tmp_path / "more"
    assert command("run", "folder", *flags_of(kind, pictures), "--out", run)[0] == 0
    begins = ["--stage1.init", run, "--stage1.steps", 0, "--stage2.init", run, "--out"]
    code, printed = command("run", "folder", *flags_of(kind, pictures), *begins, more)
    assert code == 0 and "stage 2: begins from the prior" in printed, printed
    other = next(name for name in KINDS if name != kind)
    code, printed = command("run", "folder", *flags_of(other, pictures), *begins, tmp_path / "other")
    assert code == 2 and f"stage2.prior is {kind} there and {other} here" in " ".join(printed.split()), (
        printed
    )


def test_settings_of_another_kind_are_said_to_be_of_no_use(tmp_path, command):
    pictures = write_pictures(tmp_path / "pictures")
    flags = [*flags_of("transformer", pictures), "--stage2.pixelsnail.heads", 8, "--out", tmp_path / "run"]
    code, printed = command("run", "folder", *flags)
    assert code == 0
    assert "transformer, which heeds no stage2.gated_pixelcnn, stage2.pixelsnail" in printed, printed


def test_each_level_may_have_another_kind(tmp_path, command):
    pictures, run = write_pictures(tmp_path / "pictures"), tmp_path / "run"
    fine = ["--stage1.levels", 2, "--stage1.factor", 2, "--stage2_fine.prior", "pixelsnail"]
    fine += ["--stage2_fine.pixelsnail.blocks", 2, "--stage2_fine.layers", 2, "--stage2_fine.channels", 8]
    fine += ["--stage2_fine.steps", 4, "--stage2_fine.batch_size", 8, "--stage2_fine.save_every", 2]
    fine += ["--stage2_fine.eval_every", 4, "--stage2_fine.label_dropout", 0.3]
    code, printed = command("run", "folder", *flags_of("transformer", pictures), *fine, "--out", run)
    assert code == 0, printed
    names = [type(prior).__name__ for prior in Generator.from_run(run).networks.priors]
    assert names == ["Transformer", "PixelSNAIL"]
