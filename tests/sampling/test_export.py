import shutil

import numpy as np
import pytest
import torch
import yaml

from tests.launch import ROOT
from vqprior import Generator
from vqprior.runtime import checkpoint


def images(run) -> np.ndarray:
    return Generator.from_run(run).sample(6)


def test_an_exported_run_draws_the_same_images_and_holds_nothing_else(finished_run, tmp_path, command):
    out = tmp_path / "shared"
    code, printed = command("export", finished_run, "--out", out)
    assert code == 0 and str(out) in printed
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    steps = {"manifest.json", "model.safetensors"}
    assert names == {"config.yaml", "run.json", "README.md", "config.json", "samples.png"} | {
        f"stage{n}/step-00000004/{name}" for n in (1, 2) for name in steps
    }
    text = "".join(path.read_text() for path in out.rglob("*") if path.suffix in (".json", ".yaml", ".md"))
    assert str(finished_run.parent) not in text  # no place on this machine
    assert np.array_equal(images(out), images(finished_run))

    # It can be measured, since encoding gives the codes that the prior is bound to; but not trained
    pictures = ["--data.root", finished_run.parent / "pictures"]
    assert command("encode", out, *pictures)[0] == 0
    assert command("evaluate", out, *pictures, "--only", "likelihood")[0] == 0
    code, printed = command("train-prior", out, *pictures, "--stage2.steps", 6, "--stage2.eval_every", 2)
    assert code == 2 and "to sample and not to train from" in printed
    code, printed = command("export", finished_run, "--out", out)
    assert code == 2 and "not empty" in printed


def test_half_the_size(finished_run, tmp_path, command):
    assert command("export", finished_run, "--out", tmp_path / "full")[0] == 0
    assert command("export", finished_run, "--out", tmp_path / "half", "--half", "True")[0] == 0
    full, half = (checkpoint.best(tmp_path / name / "stage2").tensors("model") for name in ("full", "half"))
    assert {tensor.dtype for tensor in half.values()} == {torch.float16}
    for name, tensor in full.items():
        assert torch.allclose(half[name].float(), tensor, rtol=1e-3, atol=1e-6)
    assert next(Generator.from_run(tmp_path / "half").networks.priors[0].parameters()).dtype == torch.float32
    difference = images(tmp_path / "half").astype(int) - images(tmp_path / "full")
    assert np.abs(difference).mean() < 3


def test_stages_that_do_not_belong_together_are_refused(finished_run, tmp_path, command):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    shutil.rmtree(run / "stage1" / "step-00000004")
    code, printed = command("export", run, "--out", tmp_path / "shared")
    assert (
        code == 2
        and "do not belong together" in printed
        and not [path for path in tmp_path.iterdir() if path != run]
    )


def test_only_a_new_folder_is_written(finished_run, tmp_path, command, monkeypatch):
    """Not in place of the current one, in which the shell would stand on, nor of a file."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    code, printed = command("export", finished_run, "--out", ".")
    assert code == 2 and "--out is the current folder; give one of its own, such as --out mine" in printed
    (tmp_path / "file").write_text("mine")
    code, printed = command("export", finished_run, "--out", tmp_path / "file")
    assert code == 2 and "is a file; give a folder with --out" in printed
    assert (tmp_path / "file").read_text() == "mine" and not [*(tmp_path / "empty").iterdir()]


@pytest.mark.parametrize("flags", [(), ("--out",)])
def test_a_folder_must_be_given(finished_run, command, flags):
    assert command("export", finished_run, *flags)[0] == 2


def test_the_model_that_ships_draws_digits_with_one_command(tmp_path, command):
    model = ROOT / "models" / "mnist"
    assert sum(path.stat().st_size for path in model.rglob("*.safetensors")) < 3e6
    assert command("sample", model, "--images", 50, "--out", tmp_path / "digits")[0] == 0
    drawn = np.load(tmp_path / "digits" / "samples.npz")
    assert (Generator.from_run(model).classify(drawn["images"]) == drawn["labels"]).mean() >= 0.9
    assert 0.05 < (drawn["images"] > 127).mean() < 0.2  # strokes on black


def test_the_model_that_ships_draws_clothes_with_one_command(tmp_path, command):
    """Its own prior sees the class that was asked for; pictures of photographs, not of one grey."""
    model = ROOT / "models" / "clothing64"
    assert sum(path.stat().st_size for path in model.rglob("*.safetensors")) < 8e6
    assert command("sample", model, "--images", 20, "--out", tmp_path / "clothes")[0] == 0
    drawn = np.load(tmp_path / "clothes" / "samples.npz")
    assert drawn["images"].shape == (20, 64, 64, 3)
    assert (Generator.from_run(model).classify(drawn["images"]) == drawn["labels"]).mean() >= 0.8
    assert drawn["images"].std(axis=(1, 2, 3)).min() > 10


def test_no_place_of_this_machine_is_exported(finished_run, tmp_path, command):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    places = {
        "train_root": "mine/train",
        "validation_root": None,
        "test_root": "mine/test",
        "table": "t",
        "cache": "mine/c",
    }
    tree = yaml.safe_load((run / "config.yaml").read_text())
    tree["data"] |= places
    (run / "config.yaml").write_text(yaml.safe_dump(tree))
    assert command("export", run, "--out", tmp_path / "shared")[0] == 0
    data = yaml.safe_load((tmp_path / "shared" / "config.yaml").read_text())["data"]
    assert data["root"] == "data" and not any(data[name] for name in places)
