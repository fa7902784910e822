"""Sharper pictures through the public commands: other terms of the loss, and a decoder trained anew."""

import filecmp
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import LFQ, RESIDUAL, SHARPER, TINY, write_pictures
from tests.launch import run_processes
from vqprior import Generator, Tokenizer
from vqprior.cli import main
from vqprior.runtime import checkpoint, interrupt, lock
from vqprior.stage1_vqvae.vqvae import VQVAE

PERCEPTUAL = SHARPER[:4]
DECODER = ["--stage1.train", "decoder", *PERCEPTUAL]
LEVELS = [*("--stage1.levels", "2", "--stage1.factor", "2", "--stage2_fine.steps", "4")]
LEVELS += [*("--stage2_fine.channels", "8", "--stage2_fine.layers", "2", "--stage2_fine.batch_size", "8")]
LEVELS += [*("--stage2_fine.save_every", "2", "--stage2_fine.eval_every", "4")]


def same_files(one: Path, other: Path) -> bool:
    names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    theirs = sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    return names == theirs and all(filecmp.cmp(one / name, other / name, shallow=False) for name in names)


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = checkpoint.best(run / "stage1")
    return found.tensors(found.weights)


@pytest.fixture
def sharpen(command, tmp_path):
    """Train the decoder of a run anew, into a run of its own."""

    def call(source: Path, *flags: object) -> Path:
        sharp = tmp_path / "sharp"
        code, printed = command("train-vqvae", "--stage1.init", source, *DECODER, *flags, "--out", sharp)
        assert code == 0, printed
        call.printed = printed
        return sharp

    return call


KINDS = {
    "levels and an average": [*LEVELS, "--stage1.average", "0.9"],
    "lfq, residual, logistic": [*LFQ, *RESIDUAL, "--stage1.likelihood", "logistic"],
}


@pytest.fixture(scope="module", params=["plain", *KINDS])
def source(request, tmp_path_factory, finished_run) -> Path:
    if request.param == "plain":
        return finished_run
    root = tmp_path_factory.mktemp("source")
    write_pictures(root / "pictures")
    flags = [*TINY, *KINDS[request.param], "--data.root", str(root / "pictures")]
    assert main(["run", "folder", *flags, "--out", str(root / "run")]) == 0
    lock.release_all()
    return root / "run"


def test_a_decoder_alone_keeps_code_maps_and_prior(source, sharpen, command, tmp_path):
    """One command: the run's codes are the other's to the byte, its prior samples, and all else is done."""
    sharp = sharpen(source)
    there, here = weights(source), weights(sharp)
    assert VQVAE.encoding(there).keys() < there.keys()
    assert {name for name, x in here.items() if not torch.equal(x, there[name])} == {
        name for name in here if name.startswith("decoder.")
    }
    assert same_files(source / "codes", sharp / "codes")
    for stage in ("stage2", "stage2-1"):
        assert (source / stage).exists() == (sharp / stage).exists()
        assert not (sharp / stage).exists() or same_files(source / stage, sharp / stage)
    mine, theirs = Generator.from_run(sharp), Generator.from_run(source)
    assert not np.array_equal(mine.sample(3), theirs.sample(3))
    pictures = torch.randint(256, (5, 8, 8, 3), dtype=torch.uint8).numpy()
    codes, expected = (Tokenizer.from_run(run).encode(pictures) for run in (sharp, source))
    assert all(map(np.array_equal, codes, expected))
    assert command("sample", sharp, "--out", tmp_path / "drawn")[0] == 0

    # Encoded anew they are the same files, and nothing is left to train
    shutil.rmtree(sharp / "codes")
    assert command("encode", sharp)[0] == 0
    assert same_files(source / "codes", sharp / "codes")
    code, printed = command("train-prior", sharp)
    assert code == 0 and "done, 4 steps" in printed


@pytest.mark.slow
def test_figures_and_samples_are_of_the_decoder_at_hand(finished_run, sharpen, command, tmp_path):
    """Trained on, it decodes the same codes otherwise: nothing that was kept of the one before is taken."""
    few = ["--images", 8, "--classifier_steps", 3]
    sharp, out = sharpen(finished_run), ["--out", tmp_path / "drawn", "--images", 4]
    figures = []
    for steps in (4, 8):
        flags = ["--stage1.steps", steps, "--stage1.learning_rate", 0.01]
        again = command("train-vqvae", sharp, *flags[: 2 if steps > 4 else 0])
        assert again[0] == 0, again[1]
        assert command("evaluate", sharp, *few)[0] == 0 and command("sample", sharp, *out)[0] == 0
        found = json.loads((sharp / "metrics.json").read_text())
        picture = (tmp_path / "drawn" / "grid.png").read_bytes()
        figures.append((found["stage1"]["mse"], found["protocol"]["vqvae"], picture))
    assert all(before != after for before, after in zip(*figures, strict=True))


def test_it_resumes_bit_for_bit_without_the_other_run(finished_run, sharpen, command, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(finished_run, source)
    sharp = sharpen(source)
    whole = {path.name: path.read_bytes() for path in (sharp / "stage1" / "step-00000004").iterdir()}
    kept = [path.stat().st_mtime_ns for path in sharp.glob("perceptual-*")]
    shutil.rmtree(source)
    shutil.rmtree(sharp / "stage1" / "step-00000004")
    assert command("train-vqvae", sharp)[0] == 0
    found = {path.name: path.read_bytes() for path in (sharp / "stage1" / "step-00000004").iterdir()}
    assert found == whole and len(kept) == 1
    assert [path.stat().st_mtime_ns for path in sharp.glob("perceptual-*")] == kept


def test_a_signal_ends_the_training_of_the_classifier(finished_run, command, tmp_path, monkeypatch):
    begin = [
        "train-vqvae",
        "folder",
        *TINY,
        *PERCEPTUAL,
        "--data.root",
        finished_run.parent / "pictures",
        "--out",
    ]
    with monkeypatch.context() as patch:
        patch.setattr(interrupt, "requested", lambda: 15)
        code, printed = command(*begin, tmp_path / "run")
    assert code == 143 and "the same command begins again" in printed
    assert not [*(tmp_path / "run").glob("perceptual-*")]
    assert command(*begin, tmp_path / "run")[0] == 0


@pytest.mark.slow
def test_a_sharper_decoder_is_sharpened_and_shared(finished_run, sharpen, command, tmp_path):
    sharp = sharpen(finished_run)
    again = ["--stage1.init", sharp, *DECODER, "--out", tmp_path / "sharper"]
    code, printed = command("train-vqvae", *again)
    assert code == 0 and "codes and stage2" in printed, printed
    assert np.array_equal(
        *(Generator.from_run(tmp_path / run).sample_codes(3) for run in ("sharp", "sharper"))
    )
    assert command("export", sharp, "--out", tmp_path / "shared")[0] == 0
    shared = Generator.from_run(tmp_path / "shared").sample(3)
    assert np.array_equal(shared, Generator.from_run(sharp).sample(3))


def test_settings_of_a_term_that_is_off_are_said(finished_run, command, tmp_path):
    begin = ["train-vqvae", "folder", *TINY, "--data.root", finished_run.parent / "pictures"]
    code, printed = command(*begin, *SHARPER[2:4], "--stage1.adversary.start", 0.5, "--out", tmp_path / "run")
    assert code == 0 and "stage1.features says nothing while stage1.perceptual is 0" in printed
    assert "stage1.adversary says nothing while stage1.adversarial is 0" in printed


def test_of_other_pictures_nothing_is_taken_over(finished_run, sharpen, tmp_path):
    write_pictures(tmp_path / "others", 17)
    sharp = sharpen(finished_run, "--data.root", tmp_path / "others")
    assert "has no code maps or prior of these pictures" in sharpen.printed
    assert not (sharp / "codes").exists() and not (sharp / "stage2").exists()


def test_a_prior_of_other_settings_is_trained_here(finished_run, sharpen, command):
    sharp = sharpen(finished_run, "--stage2.channels", 12)
    assert "is not taken over: stage2.channels is 8 there and 12 now" in sharpen.printed
    assert same_files(finished_run / "codes", sharp / "codes") and not (sharp / "stage2").exists()
    assert command("train-prior", sharp)[0] == 0
    assert checkpoint.best(sharp / "stage2").meta["config"]["stage2"]["channels"] == 12


def test_taken_over_as_it_is_it_still_makes_the_codes_of_the_first_run(
    finished_run, sharpen, command, tmp_path
):
    """So that a prior of these codes begins as one of the same codes."""
    sharp = sharpen(finished_run)
    flags = ["--stage1.train", "all", "--stage1.perceptual", 0, "--stage1.steps", 0, "--stage2.init", sharp]
    code, printed = command("run", "--stage1.init", sharp, *flags, "--out", tmp_path / "new")
    assert code == 0 and "its codes have moved" not in printed, printed
    assert same_files(finished_run / "codes", tmp_path / "new" / "codes")


def test_any_other_change_of_stage_one_is_refused(finished_run, sharpen, command, tmp_path):
    """Trained as a whole its codes move; and an encoder that was exchanged is seen."""
    all_of_it = tmp_path / "all"
    code, printed = command("train-vqvae", finished_run, "--stage1.init", finished_run, "--out", all_of_it)
    assert code == 0, printed
    for name in ("codes", "stage2"):
        shutil.copytree(finished_run / name, all_of_it / name)
    code, printed = command("sample", all_of_it)
    assert code == 2 and "They do not belong together" in printed

    sharp = sharpen(finished_run)
    step = checkpoint.best(sharp / "stage1").path
    tensors = load_file(step / "model.safetensors")
    tensors["encoder.project.bias"] += 1
    save_file(tensors, step / "model.safetensors")
    manifest = json.loads((step / "manifest.json").read_text())
    manifest["files"]["model.safetensors"] = checkpoint.sha256(step / "model.safetensors")
    (step / "manifest.json").write_text(json.dumps(manifest))
    code, printed = command("sample", sharp)
    assert code == 2 and "its encoder or its quantizers are others" in printed


def test_what_a_decoder_alone_needs_is_said(finished_run, command, tmp_path):
    cases = {
        "type --stage1.init RUN": ["folder", "--stage1.train", "decoder"],
        "type --stage1.train all --stage1.perceptual 0, or give some": [
            *("--stage1.init", finished_run, *DECODER, "--stage1.steps", 0),
        ],
        "needs a folder for the new run": ["--stage1.init", finished_run, *DECODER],
        "is not a run directory": ["folder", "--stage1.init", "NOWHERE", *DECODER],
        "which is a part of lpips": ["folder", "--stage1.features.heads", "x", "--stage1.perceptual", "1"],
    }
    for words, flags in cases.items():
        out = [] if "folder" in words else ["--out", tmp_path / "new"]
        code, printed = command("train-vqvae", *flags, *out)
        said = " ".join(printed.replace("\u2502", " ").split())
        assert code == 2 and words in said, printed
    assert not (tmp_path / "new").exists()


def test_what_is_refused_has_taken_nothing_over(finished_run, command, tmp_path):
    """So that what it says to type instead is no contradiction."""
    begin = ["train-vqvae", "--stage1.init", finished_run, *DECODER, "--out", tmp_path / "sharp"]
    code, printed = command(*begin, "--stage1.features.network", "lpips")
    assert code == 2 and "--stage1.features.network classifier" in printed, printed
    assert not (tmp_path / "sharp").exists()
    code, printed = command(*begin, "--stage1.features.network", "classifier")
    assert code == 0 and "codes and stage2" in printed, printed


def test_an_adversary_in_a_recorded_step_is_refused_before_anything_is_made(finished_run, command, tmp_path):
    pictures, new = finished_run.parent / "pictures", tmp_path / "new"
    for name in ("run", "train-vqvae"):
        flags = [*TINY, *SHARPER, "--cuda_graph", True, "--data.root", pictures, "--out", new]
        code, printed = command(name, "folder", *flags)
        assert code == 2 and "leave out --cuda_graph" in printed and not new.exists(), printed


def test_a_classifier_of_one_s_own_takes_classes_or_a_file(finished_run, command, tmp_path):
    """Without classes it is refused with what else to type, and the file of another run is taken."""
    write_pictures(tmp_path / "flat", classes=())
    begin = [
        "train-vqvae",
        "folder",
        *TINY,
        "--data.root",
        tmp_path / "flat",
        "--stage1.perceptual",
        1,
        "--out",
    ]
    code, printed = command(*begin, tmp_path / "no")
    assert code == 2 and "--stage1.features.network lpips" in printed and "FILE of a classifier" in printed
    labelled = ["train-vqvae", "folder", *TINY, "--data.root", finished_run.parent / "pictures", *PERCEPTUAL]
    assert command(*labelled, "--out", tmp_path / "labelled")[0] == 0
    (file,) = (tmp_path / "labelled").glob("perceptual-*.safetensors")
    code, printed = command(*begin, tmp_path / "yes", "--stage1.features.weights", file)
    assert code == 0, printed
    metas = [checkpoint.best(tmp_path / run / "stage1").meta for run in ("labelled", "yes")]
    assert metas[0]["perceptual"] == metas[1]["perceptual"]

    # The network is no part of the model, and another one is refused where it was begun with this
    assert not any("parts" in name or "head" in name for name in weights(tmp_path / "labelled"))
    other = {name: x + 1 for name, x in load_file(file).items()}
    save_file(other, tmp_path / "other.safetensors")
    more = ["--stage1.steps", 6, "--stage1.features.weights", tmp_path / "other.safetensors"]
    code, printed = command("train-vqvae", tmp_path / "yes", *more)
    assert code == 2 and "learnt from features of another network" in printed


@pytest.fixture(scope="module")
def sharper(tmp_path_factory, finished_run):
    """A run with both terms, and how to begin another one."""
    root = tmp_path_factory.mktemp("sharper")
    arguments = ["train-vqvae", "folder", *TINY, *SHARPER, "--data.root", finished_run.parent / "pictures"]
    arguments += ["--stage1.save_every", "1", "--stage1.keep", "9"]
    assert main([*map(str, arguments), "--out", str(root / "run")]) == 0
    lock.release_all()
    return root / "run", arguments


def test_the_adversary_is_heard_from_its_start_and_seen_in_the_curves(sharper):
    """Of four steps the first is its own; the latest checkpoint is the chosen one, and says so."""
    run, _ = sharper
    events = EventAccumulator(str(run)).Reload()
    steps = lambda tag: [event.step for event in events.Scalars(tag)]
    assert steps("stage1_loss/adversarial") == [2, 3, 4]
    for name in ("logits_real", "logits_fake", "loss", "lecam", "gradient_norm"):
        assert steps(f"stage1_adversary/{name}") == [1, 2, 3, 4]
    value = lambda tag: [event.value for event in events.Scalars(tag)]
    of_decoder, logits = value("stage1_loss/adversarial"), value("stage1_adversary/logits_fake")[1:]
    assert of_decoder == pytest.approx([-0.1 * logit for logit in logits]) and min(map(abs, logits)) > 1e-4
    best = checkpoint.best(run / "stage1")
    assert best.step == 4 and best.meta["chosen"].startswith("as the latest")
    averages = best.tensors("adversary")["averages"]
    logged = [
        [event.value for event in events.Scalars(f"stage1_adversary/logits_{of}")] for of in ("real", "fake")
    ]
    expected = sum(torch.tensor(logged)[:, step] * 0.01 * 0.99 ** (3 - step) for step in range(4))
    assert torch.allclose(averages, expected, rtol=1e-4)
    assert not any("layers" in name for name in best.tensors("model"))


def test_a_stage_one_that_stays_as_it_is_records_no_step(sharper, command, tmp_path):
    """The prior may be trained on with a recorded step: the adversary has nothing more to say."""
    run = tmp_path / "run"
    shutil.copytree(sharper[0], run)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("steps: 4", "steps: 9", 1))  # as if stopped at 4 of them
    assert command("encode", run)[0] == command("train-prior", run)[0] == 0
    code, printed = command("train-vqvae", run, "--cuda_graph", True)
    assert code == 0 and "stays at step 4 of 9" in printed, printed


@pytest.mark.slow
def test_a_stopped_run_with_an_adversary_goes_on_bit_for_bit(sharper, tmp_path):
    run, arguments = sharper
    arguments = [*arguments, "--out", tmp_path / "run"]
    stopped = run_processes(arguments, env={"TEST_STOP_AT": "2"})
    assert stopped.returncode == 143, stopped.stderr[-3000:]
    assert run_processes(arguments).returncode == 0
    whole, found = (path / "stage1" / "step-00000004" for path in (run, tmp_path / "run"))
    files = sorted(path.name for path in whole.glob("*.safetensors"))
    assert files == [
        f"{name}.safetensors" for name in ("adversary", "adversary_optimizer", "model", "optimizer")
    ]
    for name in files:
        assert (whole / name).read_bytes() == (found / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [5, 6], ids=["the model's", "the adversary's"])
def test_an_unsound_gradient_of_either_moves_neither(sharper, tmp_path, gradient):
    """That of step 3: the fifth or the sixth that is taken backward."""
    _, arguments = sharper
    done = run_processes([*arguments, "--out", tmp_path / "run"], env={"TEST_NAN_GRADIENT": str(gradient)})
    assert done.returncode == 0, done.stderr[-3000:]
    steps = [tmp_path / "run" / "stage1" / f"step-{step:08d}" for step in (2, 3, 4)]
    for name in ("model", "optimizer", "adversary", "adversary_optimizer"):
        before, unsound, after = (load_file(step / f"{name}.safetensors") for step in steps)
        assert all(torch.equal(x, unsound[key]) for key, x in before.items())
        assert any(not torch.equal(x, after[key]) for key, x in before.items())
        assert all(x.isfinite().all() for x in after.values())


@pytest.mark.slow
def test_both_terms_work_in_bf16_and_with_levels(finished_run, command, tmp_path):
    common = [*TINY, *SHARPER, "--data.root", finished_run.parent / "pictures"]
    for index, flags in enumerate((["--precision", "bf16"], [*LEVELS, "--stage1.likelihood", "logistic"])):
        out = tmp_path / f"run{index}"
        code, printed = command("train-vqvae", "folder", *common, *flags, "--out", out)
        assert code == 0, printed
        found = checkpoint.best(out / "stage1")
        assert {x.dtype for x in found.tensors("adversary").values()} == {torch.float32}


def test_a_decoder_alone_hears_an_adversary(finished_run, sharpen):
    sharp = sharpen(finished_run, *SHARPER, "--precision", "bf16")
    assert same_files(finished_run / "codes", sharp / "codes")
    there, here = weights(finished_run), weights(sharp)
    assert all(torch.equal(x, here[name]) for name, x in VQVAE.encoding(there).items())


def test_a_full_disk_beneath_the_classifier_is_a_message(pictures, tmp_path, command, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.serialize_file", full)
    flags = [*TINY, *PERCEPTUAL, "--data.root", pictures, "--out", tmp_path / "run"]
    code, printed = command("train-vqvae", "folder", *flags)
    assert code == 2 and "No space left on device" in printed and "make room" in printed, printed
