"""All commands on tiny made-up pictures."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import FSQ, LFQ, RESIDUAL, TINY, write_pictures
from tests.launch import ROOT, environment
from vqprior.runtime.code_maps import CodeMaps

LATER_STEPS = [("encode",), ("train-prior",), ("sample",), ("evaluate", "--classifier_steps", 3)]


def test_a_run_leaves_what_it_promises(finished_run):
    names = {path.name for path in finished_run.iterdir()}
    assert names >= {
        "config.yaml",
        "run.json",
        "stage1",
        "codes",
        "stage2",
        "samples",
        "validation",
        "by_place",
        "metrics.json",
    }
    archive = np.load(finished_run / "samples" / "samples.npz")
    assert archive["images"].shape == (6, 8, 8, 3) and archive["images"].dtype == np.uint8
    assert archive["labels"].tolist() == [0, 1, 0, 1, 0, 1]
    for index in range(6):
        png = np.asarray(Image.open(finished_run / "samples" / "images" / f"{index:05d}.png"))
        assert np.array_equal(png, archive["images"][index])
    assert Image.open(finished_run / "samples" / "grid.png").size[0] > 16
    assert CodeMaps(finished_run / "codes").split("train").codes is not None
    metrics = json.loads((finished_run / "metrics.json").read_text())
    assert metrics["stage1"]["mse"] > 0 and 1 <= metrics["stage1"]["perplexity"] <= 16
    assert metrics["stage2"]["bits_per_image"] == pytest.approx(4 * metrics["stage2"]["bits_per_code"])
    leftovers = [path for path in finished_run.rglob("*") if path.suffix == ".tmp" or "partial" in path.name]
    assert not leftovers


def test_the_curves_have_each_step_once(finished_run):
    for stage, tags in {
        "stage1": [
            "loss/total",
            "loss/reconstruction",
            "loss/commitment",
            "rates/learning_rate",
            "rates/gradient_norm",
            "speed/images_per_second",
        ],
        "stage2": [
            "loss/bits_per_code",
            "rates/learning_rate",
            "rates/gradient_norm",
            "speed/images_per_second",
        ],
    }.items():
        events = EventAccumulator(str(finished_run)).Reload()
        for tag in tags:
            assert [event.step for event in events.Scalars(f"{stage}_{tag}")] == [1, 2, 3, 4], tag
    pictures = {"stage1/reconstructions", "stage1/single_codes", "stage2/samples"}
    assert set(events.Tags()["images"]) == pictures
    scalars = set(events.Tags()["scalars"])
    assert len(scalars) < 20 and {"stage1/mse", "stage2/bits_per_code"} <= scalars
    assert "stage1_loss/codebook" not in scalars  # moving averages have no such term
    held_out = EventAccumulator(str(finished_run / "validation")).Reload().Tags()["scalars"]
    assert {"stage1/mse", "stage1_codes/perplexity", "stage1_codes/usage", "stage2/bits_per_code"} <= {
        *held_out
    }
    by_place = EventAccumulator(str(finished_run / "by_place")).Reload()
    assert by_place.Tags()["scalars"] == ["stage2/bits_per_code"]


def test_the_same_command_again_says_that_all_is_done(finished_run, tmp_path, command):
    shutil.copytree(finished_run, tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.safetensors")}
    code, printed = command("run", tmp_path / "run")
    assert code == 0 and printed.count("done") == 6  # a line for each step and part
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.safetensors")} == before


def test_a_run_goes_on_whatever_the_defaults_of_what_it_does_not_use_were(finished_run, tmp_path, command):
    """Settings, and checkpoints too, are those of a version with other defaults."""
    shutil.copytree(finished_run, tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    tree = yaml.safe_load(config.read_text())
    tree["stage2_fine"]["layers"] = tree["stage1"]["adversary"]["width"] = 64
    tree["stage2"]["transformer"]["heads"], tree["stage1"]["lfq"]["entropy"] = 8, 0.5
    config.write_text(yaml.safe_dump(tree))
    for manifest in (tmp_path / "run").glob("stage*/step-*/manifest.json"):
        saved = json.loads(manifest.read_text())
        saved["meta"]["config"] = tree
        manifest.write_text(json.dumps(saved))
    flags = [*TINY, "--data.root", finished_run.parent / "pictures", "--out", tmp_path / "run"]
    for words in (
        ["train-vqvae", "folder", *flags],
        ["train-prior", "folder", *flags],
        ["sample", flags[-1]],
    ):
        code, printed = command(*words)
        assert code == 0, printed


def test_the_steps_one_by_one_are_the_run(finished_run, tmp_path, command, monkeypatch):
    """Each command on its own, from other folders, ends with the same weights, codes and samples."""
    root, out = finished_run.parent / "pictures", tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    assert command("train-vqvae", "folder", *TINY, "--data.root", root, "--out", out)[0] == 0
    for name, *flags in LATER_STEPS:
        code, printed = command(name, out, *flags)
        assert code == 0, printed
    for file in (
        "stage1/step-00000004/model.safetensors",
        "stage2/step-00000004/average.safetensors",
        "codes/train-00000.codes.npy",
        "samples/samples.npz",
    ):
        assert (out / file).read_bytes() == (finished_run / file).read_bytes(), file


def test_more_steps_resume_and_fewer_steps_ahead_are_left(finished_run, tmp_path, command):
    shutil.copytree(finished_run, tmp_path / "run")
    code, _ = command("train-prior", tmp_path / "run", "--stage2.steps", 6, "--stage2.eval_every", 2)
    assert code == 0
    assert (tmp_path / "run" / "stage2" / "step-00000006").is_dir()
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert [event.step for event in events.Scalars("stage2_loss/bits_per_code")] == [1, 2, 3, 4, 5, 6]


def test_an_interrupted_run_ends_like_an_unbroken_one(finished_run, tmp_path, command):
    """Both stages stopped after 2 of 4 steps: same weights, same optimizer, bit for bit."""
    for stage in ("stage1", "stage2"):
        shutil.copytree(finished_run, tmp_path / stage)
        steps = sorted((tmp_path / stage / stage).iterdir())
        assert [path.name for path in steps] == ["step-00000002", "step-00000004"]
        shutil.rmtree(steps[1])  # as if killed after step 2
        assert command("train-vqvae" if stage == "stage1" else "train-prior", tmp_path / stage)[0] == 0
        for name in ("model", "optimizer", *(["average"] if stage == "stage2" else [])):
            file = f"{stage}/step-00000004/{name}.safetensors"
            assert (tmp_path / stage / file).read_bytes() == (finished_run / file).read_bytes(), file


def test_a_signal_in_the_last_round_of_samples_is_heeded(finished_run, tmp_path, command, monkeypatch):
    """What comes after it would go on, and end as if nothing had been said."""
    from vqprior.sampling import generate

    def told(*given: object) -> Path:
        signal.raise_signal(signal.SIGTERM)
        return tmp_path

    shutil.copytree(finished_run, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    monkeypatch.setattr(generate, "generate", told)
    code, printed = command("run", tmp_path / "run")
    assert code == 128 + signal.SIGTERM and "run: stopped as told" in printed, printed
    assert not (tmp_path / "run" / "metrics.json").exists()
    monkeypatch.undo()
    assert command("run", tmp_path / "run")[0] == 0 and (tmp_path / "run" / "metrics.json").exists()


def test_sample_writes_where_it_is_told(finished_run, tmp_path, command):
    code, _ = command(
        "sample",
        finished_run,
        "--images",
        3,
        "--label",
        "bee",
        "--seed",
        2,
        "--temperature",
        0.8,
        "--top_k",
        9,
        "--top_p",
        0.9,
        "--batch_size",
        2,
        "--out",
        tmp_path / "out",
    )
    assert code == 0
    assert np.load(tmp_path / "out" / "samples.npz")["labels"].tolist() == [1, 1, 1]
    before = (tmp_path / "out" / "samples.npz").read_bytes()
    assert (
        "done"
        in command(
            "sample",
            finished_run,
            "--images",
            3,
            "--label",
            "bee",
            "--seed",
            2,
            "--temperature",
            0.8,
            "--top_k",
            9,
            "--top_p",
            0.9,
            "--batch_size",
            2,
            "--out",
            tmp_path / "out",
        )[1]
    )
    # other settings: drawn anew
    assert command("sample", finished_run, "--images", 2, "--out", tmp_path / "out")[0] == 0
    assert (tmp_path / "out" / "samples.npz").read_bytes() != before
    assert len(list((tmp_path / "out" / "images").iterdir())) == 2


NEITHER_KMEANS_NOR_RESTART = ["--stage1.codebook.kmeans", "False", "--stage1.codebook.restart", "0"]


@pytest.mark.parametrize(
    "flags",
    [
        ["--stage1.quantizer", "gradient"],
        ["--stage1.codebook.normalize", "True", "--stage1.average", "0.9"],
        ["--precision", "bf16"],
        ["--stage1.accumulate", "2", "--stage2.accumulate", "4", "--channels_last", "False"],
        [
            "--data.size",
            "8",
            "16",
            "--data.channels",
            "1",
            "--stage1.factor",
            "2",
            "--data.flip",
            "True",
            "--data.margin",
            "2",
        ],
        ["--stage2.average", 0, "--data.memory_gb", 0, *NEITHER_KMEANS_NOR_RESTART],
        [*FSQ, "--stage1.average", "0.9"],
        ["--data.labels", "False"],
    ],
    ids=lambda flags: flags[0],
)
def test_the_whole_run_under_other_settings(flags, tmp_path, command):
    pictures = write_pictures(tmp_path / "pictures")
    code, printed = command(
        "run", "folder", *TINY, "--data.root", pictures, "--out", tmp_path / "run", *flags
    )
    assert code == 0, printed
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_a_run_that_has_begun_goes_on_in_more_passes(tmp_path, command):
    pictures = write_pictures(tmp_path / "pictures")
    arguments = ["train-vqvae", "folder", *TINY, "--data.root", pictures, "--out", tmp_path / "run"]
    assert command(*arguments, "--stage1.steps", 2, "--stage1.eval_every", 2)[0] == 0
    code, printed = command(
        *arguments, "--stage1.steps", 4, "--stage1.eval_every", 2, "--stage1.accumulate", 4
    )
    assert code == 0 and (tmp_path / "run" / "stage1" / "step-00000004").is_dir(), printed


def test_accumulation_gives_the_same_update(tmp_path, command):
    """In fp64, so that only a fault is more than rounding; the update of all codebooks and of the prior."""
    pictures = write_pictures(tmp_path / "pictures")
    kinds = {"ema": ["--stage1.codebook.restart", 0.9], "lfq residual": [*LFQ, *RESIDUAL]}
    kinds["gradient"] = ["--stage1.quantizer", "gradient", *kinds["ema"]]
    torch.set_default_dtype(torch.float64)
    try:
        for kind, flags in kinds.items():
            for passes in (1, 4):
                of_passes = ["--stage1.accumulate", passes, "--stage2.accumulate", passes]
                of_passes += ["--stage2.dropout", 0.3, "--stage2.label_dropout", 0.3]
                more = ["--data.root", pictures, "--out", tmp_path / f"{kind}{passes}"]
                assert command("run", "folder", *TINY, *flags, *of_passes, *more)[0] == 0
    finally:
        torch.set_default_dtype(torch.float32)
    for kind in kinds:
        for file in (
            "stage1/step-00000004/model",
            "stage2/step-00000004/model",
            "stage2/step-00000004/average",
        ):
            one, four = (load_file(tmp_path / f"{kind}{passes}" / f"{file}.safetensors") for passes in (1, 4))
            for name, value in one.items():
                assert value.dtype != torch.float32 and torch.allclose(
                    value, four[name], rtol=1e-8, atol=1e-10
                ), name


LAUNCHERS = {
    "accelerate": ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"],
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"],  # as on two GPUs
}


@pytest.fixture(params=LAUNCHERS)
def launch(request):
    """Run a program behind a launcher; what it printed."""

    def call(*program: object) -> str:
        words = [sys.executable, *LAUNCHERS[request.param], *map(str, program)]
        done = subprocess.run(words, env=environment(None), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return call


@pytest.mark.slow
def test_python_m_vqprior_behind_a_launcher(finished_run, tmp_path, launch, monkeypatch):
    """From a folder with packages named like ours in it; however many processes there are, one of them
    speaks."""
    root, out, here = finished_run.parent / "pictures", tmp_path / "run", tmp_path / "research"
    for name in ("configs", "runtime", "sampling", "stage1_vqvae"):
        (here / name).mkdir(parents=True)
        (here / name / "__init__.py").write_text("raise RuntimeError('a package of the user')")
    monkeypatch.chdir(here)
    printed = launch("-m", "vqprior", "run", "folder", *TINY, "--data.root", root, "--out", out)
    assert printed.count("samples  ") == 1
    assert (out / "metrics.json").is_file() and (out / "samples" / "grid.png").is_file()


@pytest.mark.slow
def test_each_command_behind_a_launcher(finished_run, tmp_path, launch):
    root, out = finished_run.parent / "pictures", tmp_path / "run"
    steps = ["train-vqvae", "folder", *TINY, "--data.root", root, "--out", out]
    for name, *flags in LATER_STEPS:
        steps += ["then", name, out, *flags]
    printed = launch(ROOT / "tests" / "launch.py", *steps)
    assert (
        printed.count(f"sample: 6 images in {out / 'samples'}, all in ")
        == printed.count("stage 1: reconstruction of 9 test images")
        == 1
    )
    assert (out / "metrics.json").is_file() and (out / "samples" / "grid.png").is_file()


def test_several_codes_a_position_and_a_decoder_with_a_likelihood(pictures, tmp_path, command):
    """From pictures to a bound in bits/dim, and completions that take all codes of a position together."""
    run, flags = (
        tmp_path / "run",
        ["--data.size", 8, 12, "--stage1.codes_per_position", 3, "--stage1.likelihood", "logistic"],
    )
    code, printed = command("run", "folder", *TINY, *flags, "--data.root", pictures, "--out", run)
    assert code == 0, printed
    assert CodeMaps(run / "codes").split("test").codes(torch.arange(1))[0].shape == (1, 2, 9)
    two = json.loads((run / "metrics.json").read_text())["stage2"]
    assert two["bits_per_image"] == pytest.approx(18 * two["bits_per_code"])
    assert two["prior_bits_per_dim"] == pytest.approx(two["bits_per_image"] / (3 * 8 * 12))
    assert two["bits_per_dim"] == pytest.approx(two["decoder_bits_per_dim"] + two["prior_bits_per_dim"])
    assert 0 < two["decoder_bits_per_dim"] < 12 and "bits/dim" in printed
    assert np.load(run / "samples" / "samples.npz")["images"].shape == (6, 8, 12, 3)

    picture = ["--image", pictures / "ant" / "picture0.png", "--hide", "right half", "--label", "ant"]
    code, printed = command("complete", run, *picture, "--images", 2)
    assert code == 0, printed
    known = np.load(run / "completions" / "picture0" / "completions.npz")["known"]
    # half of three squares: the one in the middle is hidden too
    assert known.tolist() == [[True] * 3 + [False] * 6] * 2


def test_a_run_goes_on_with_codes_of_another_precision(command, pictures, tmp_path):
    """Which `encode` was told; the prior has learnt from these."""
    flags, run = ["--data.root", pictures], tmp_path / "run"
    assert command("train-vqvae", "folder", *TINY, *flags, "--out", run)[0] == 0
    assert command("encode", run, "--precision", "bf16")[0] == 0
    assert command("train-prior", run)[0] == 0
    code, printed = command("run", run)
    assert code == 0, printed
