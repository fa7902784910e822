"""Beginning from another run: its weights where they fit, words where they do not, no need of it later."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import TINY, write_pictures
from tests.launch import run_processes
from vqprior import CodeMaps, Generator, Tokenizer
from vqprior.configs.schema import GatedPixelCNN, Stage2
from vqprior.runtime import checkpoint
from vqprior.runtime.codes import Level
from vqprior.runtime.data import load
from vqprior.runtime.run_dir import RunDir
from vqprior.stage2_prior.begin import weights_of
from vqprior.stage2_prior.gated_pixelcnn.model import PixelCNN

STILL = 1e-30  # a learning rate that moves no weight


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> Path:
    """Other pictures of the same classes."""
    root = tmp_path_factory.mktemp("others")
    for index, folder in enumerate(("ant", "bee")):
        write_pictures(root / folder, 17 + index, ())
    return root


def evaluated(run: Path, stage: str) -> checkpoint.Checkpoint:
    """The weights that a stage of a run uses."""
    return checkpoint.best(run / stage)


def weights(found: checkpoint.Checkpoint) -> dict[str, torch.Tensor]:
    return found.tensors(found.weights)


@pytest.fixture
def begin(command, tmp_path, others):
    """Run a command with a new run directory on other pictures."""

    def call(name: str, *flags: object, out: str = "new") -> Path:
        common = [*TINY, "--seed", 1, "--data.root", others, "--out", tmp_path / out]
        code, printed = command(name, "folder", *common, *flags)
        assert code == 0, printed
        call.printed = printed
        return tmp_path / out

    return call


def test_stage_one_begins_with_all_weights_of_the_other(finished_run, begin):
    """A step that moves nothing leaves them, the codebook and its averages among them: no k-means."""
    still = ["--stage1.learning_rate", STILL]
    still += ["--stage1.codebook.decay", 1 - 1e-9, "--stage1.codebook.restart", 0]
    still += ["--stage1.average", 0.9, "--stage1.steps", 1]
    run = begin("train-vqvae", "--stage1.init", finished_run, *still)
    source, here = evaluated(finished_run, "stage1"), evaluated(run, "stage1")
    for file in ("model", "average"):
        found = here.tensors(file)
        assert found.keys() == weights(source).keys()
        for name, there in weights(source).items():
            assert torch.allclose(found[name], there, rtol=1e-5, atol=1e-6), name
            assert name.startswith("quantizers.") or torch.equal(found[name], there), name
    assert here.meta["begun_from"] == [source.fingerprint]
    assert f"begins from the VQ-VAE {source.fingerprint[:12]} of {finished_run}, step 4" in begin.printed


def test_training_moves_on_from_there(finished_run, begin):
    run = begin("train-vqvae", "--stage1.init", finished_run)
    runs = (finished_run, run, begin("train-vqvae", out="anew"))
    start, after, anew = (weights(evaluated(run, "stage1"))["encoder.conv.weight"] for run in runs)
    assert 0 < (after - start).abs().max() < 0.1 * (anew - start).abs().max()


def test_other_settings_that_change_what_is_meant_are_said(finished_run, begin):
    begin("train-vqvae", "--stage1.init", finished_run, "--data.size", 16, 8, "--stage1.likelihood", "l1")
    said = "data.size is (8, 8) there and (16, 8) here; stage1.likelihood is mse there and l1 here"
    assert f"mind that {said}" in begin.printed


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_resuming_takes_no_source(finished_run, begin, tmp_path, stage):
    """Stopped after two of four steps, and the other run deleted: the same bits as unbroken."""
    source = tmp_path / "source"
    shutil.copytree(finished_run, source)
    flags = ["--stage1.init", source, "--stage2.init", source, "--stage2.average", 0.5]
    flags += ["--stage1.steps", 4 if stage == "stage1" else 0]
    run = begin("run", *flags)
    whole = {path.name: path.read_bytes() for path in (run / stage / "step-00000004").iterdir()}
    origins = evaluated(run, stage).meta["begun_from"]
    assert origins == [evaluated(source, stage).fingerprint]
    shutil.rmtree(source)
    later = [run / "codes", run / "stage2"] if stage == "stage1" else []
    for folder in (run / stage / "step-00000004", *later):
        shutil.rmtree(folder)
    begin("train-vqvae" if stage == "stage1" else "train-prior", *flags)
    assert {path.name: path.read_bytes() for path in (run / stage / "step-00000004").iterdir()} == whole


def test_the_field_is_fixed_once_the_stage_has_begun(finished_run, begin, command):
    run = begin("train-vqvae", "--stage1.init", finished_run, "--stage1.steps", 2, "--stage1.eval_every", 2)
    code, printed = command("train-vqvae", run, "--stage1.init", "elsewhere")
    assert code == 2 and f"stage1.init is {finished_run} there and elsewhere now" in printed


def test_stage_one_is_taken_over_as_it_is(finished_run, begin, others):
    """Its fingerprint, its codes of new pictures, and a prior on them."""
    run = begin("run", "--stage1.init", finished_run, "--stage1.steps", 0)
    assert "stage 1: taken over as it is" in begin.printed
    assert [path.name for path in (run / "stage1").iterdir()] == ["step-00000000"]
    assert evaluated(run, "stage1").fingerprint == evaluated(finished_run, "stage1").fingerprint
    data = load(RunDir(run).config().data, run=run)
    pictures = data.test.images(torch.arange(len(data.test))).permute(0, 2, 3, 1).numpy()
    codes = CodeMaps(run / "codes").split("test").codes(torch.arange(len(data.test)))[0].numpy()
    assert np.array_equal(codes, Tokenizer.from_run(finished_run).encode(pictures))
    assert evaluated(run, "stage2").fingerprint != evaluated(finished_run, "stage2").fingerprint
    assert np.array_equal(Tokenizer.from_run(run).encode(pictures), codes)


def test_what_was_taken_over_can_be_trained_later(finished_run, begin):
    flags = ["--stage1.init", finished_run, "--stage1.average", 0.9, "--stage1.learning_rate", STILL]
    run = begin("train-vqvae", *flags, "--stage1.steps", 0)
    begin("train-vqvae", *flags, "--stage1.steps", 2, "--stage1.eval_every", 2)
    there = weights(evaluated(finished_run, "stage1"))
    here = load_file(run / "stage1" / "step-00000002" / "model.safetensors")
    assert torch.equal(here["encoder.conv.weight"], there["encoder.conv.weight"])


def test_an_exported_run_will_do_and_keeps_what_it_began_from(finished_run, begin, command, tmp_path):
    assert command("export", finished_run, "--half", True, "--out", tmp_path / "half")[0] == 0
    half = tmp_path / "half"
    run = begin("run", "--stage1.init", half, "--stage1.steps", 0, "--stage2.init", half)
    assert evaluated(run, "stage1").fingerprint == evaluated(half, "stage1").fingerprint
    assert command("export", run, "--out", tmp_path / "again")[0] == 0
    exported = evaluated(tmp_path / "again", "stage2")
    assert exported.meta["begun_from"] == [evaluated(half, "stage2").fingerprint]
    config = RunDir(tmp_path / "again").config()
    assert config.stage1.init is config.stage2.init is None
    assert np.array_equal(Generator.from_run(tmp_path / "again").sample(3), Generator.from_run(run).sample(3))


def test_a_prior_begins_from_the_other_s(finished_run, begin):
    """On the same pictures and codes, after a step that moves nothing, it scores the same."""
    flags = ["--stage1.init", finished_run, "--stage1.steps", 0, "--stage2.init", finished_run]
    flags += ["--stage2.learning_rate", STILL, "--stage2.steps", 1]
    run = begin("run", *flags, "--data.root", finished_run.parent / "pictures")
    source, here = evaluated(finished_run, "stage2"), evaluated(run, "stage2")
    for file in ("model", "average"):
        assert all(torch.equal(here.tensors(file)[name], x) for name, x in weights(source).items())
    assert here.score == source.score and here.meta["begun_from"] == [source.fingerprint]
    prior = f"the prior {source.fingerprint[:12]} of {finished_run}, step 4"
    assert f"stage 2: begins from {prior}" in begin.printed
    assert "moved" not in begin.printed and "another order" not in begin.printed


def test_a_prior_of_codes_that_moved_is_told_so(finished_run, begin):
    begin("run", "--stage1.init", finished_run, "--stage2.init", finished_run)
    there = evaluated(finished_run, "stage1").fingerprint[:12]
    assert f"it learnt codes of the VQ-VAE {there}, from which stage one here began" in begin.printed


def renamed(run: Path, out: Path, names: list[str]) -> Path:
    """A copy of a run whose classes have other names, or another order."""
    shutil.copytree(run, out)
    for manifest in (out / "stage2").glob("*/manifest.json"):
        tree = json.loads(manifest.read_text())
        tree["meta"]["codes"]["label_names"] = names
        manifest.write_text(json.dumps(tree))
    return out


def test_classes_in_another_order_are_matched_by_name(finished_run, begin, tmp_path):
    source = renamed(finished_run, tmp_path / "source", ["bee", "ant"])
    flags = ["--stage1.init", source, "--stage1.steps", 0, "--stage2.init", source]
    run = begin("run", *flags, "--stage2.learning_rate", STILL, "--stage2.steps", 1)
    there, here = weights(evaluated(source, "stage2")), weights(evaluated(run, "stage2"))
    for name, x in there.items():
        assert torch.equal(here[name], x.flip(0) if "label_bias" in name else x), name
    assert "its classes have another order, and are matched by name" in begin.printed


def test_a_prior_with_its_classes_in_another_order_gives_the_same_for_the_same_name():
    there, here = ["a", "b", "c"], ["c", "a", "b"]
    torch.manual_seed(0)
    make = lambda: PixelCNN(
        Stage2(channels=4, layers=2, gated_pixelcnn=GatedPixelCNN(head=4), label_dropout=0.1),
        Level(5, 3, 3),
        3,
    )
    one, other = make(), make()
    for parameter in one.parameters():
        torch.nn.init.normal_(parameter)
    source = SimpleNamespace(weights="model", tensors=lambda name: dict(one.state_dict()), meta={"codes": {}})
    source.meta["codes"]["label_names"] = there
    other.load_state_dict(weights_of(source, here, other))
    codes = torch.randint(5, (4, 3, 3))
    old, new = torch.tensor([0, 1, 2, 3]), torch.tensor([1, 2, 0, 3])  # a, b, c, and the hidden label
    assert torch.equal(one(codes, old), other(codes, new))
    assert not torch.equal(one(codes, old), other(codes, old))


REFUSED = {
    "no run": (["--stage1.init", "NOWHERE"], "stage1.init is 'NOWHERE', which is not a run directory"),
    "a run without stage one": (["--stage1.init", "EMPTY"], "train that stage first"),
    "another K": (
        ["--stage1.init", "SOURCE", "--stage1.K", "32"],
        "stage1.K is 16 there and 32 here; quantizers.0.embedding is [16, 4] there and [32, 4] here",
    ),
    "another width": (
        ["--stage1.init", "SOURCE", "--stage1.width", "16", "--stage1.factor", "8"],
        "stage1.factor is 4 there and 8 here; stage1.width is 8 there and 16 here",
    ),
    "what to type": (
        ["--stage1.init", "SOURCE", "--stage1.width", "16", "--stage1.factor", "8"],
        "Type --stage1.factor 4 --stage1.width 8 to begin from them, or leave --stage1.init out",
    ),
    "grey pictures": (
        ["--stage1.init", "SOURCE", "--data.channels", "1"],
        "data.channels is 3 there and 1 here",
    ),
    "codes compared otherwise": (
        ["--stage1.init", "SOURCE", "--stage1.codebook.normalize", "True"],
        "stage1.codebook.normalize is False there and True here",
    ),
    "another codebook": (
        ["--stage1.init", "SOURCE", "--stage1.quantizer", "gradient"],
        "quantizers.0.sums is [16, 4] there and missing here",
    ),
    "a decoder with other outputs": (
        ["--stage1.init", "SOURCE", "--stage1.likelihood", "categorical"],
        "stage1.likelihood is mse there and categorical here",
    ),
    "no steps of one's own": (["--stage1.steps", "0"], "or 0 with --stage1.init RUN"),
    "no steps of the prior": (["--stage2.init", "SOURCE", "--stage2.steps", "0"], "it must be at least 1"),
    "a prior of an unrelated VQ-VAE": (
        ["--stage2.init", "SOURCE"],
        "of one that begins anew: the same numbers mean other things. Begin stage one from it too",
    ),
    "a prior of another width": (
        ["--stage1.init", "SOURCE", "--stage2.init", "SOURCE", "--stage2.channels", "4"],
        "stage2.channels is 8 there and 4 here; embedding.weight is [16, 8] there and [16, 4] here",
    ),
    "a prior of another kind": (
        [
            *("--stage1.init", "SOURCE", "--stage2.init", "SOURCE", "--stage2.channels", "16"),
            *("--stage2.prior", "transformer", "--stage2.gated_pixelcnn.head", "256"),
        ],
        "stage2.prior is gated_pixelcnn there and transformer here; stage2.channels is 8 there and 16 here; "
        "stage2.gated_pixelcnn.head is 8 there and 256 here",
    ),
    "a prior whose own setting differs": (
        ["--stage1.init", "SOURCE", "--stage2.init", "SOURCE", "--stage2.gated_pixelcnn.head", "4"],
        "stage2.gated_pixelcnn.head is 8 there and 4 here; hidden.weight is [8, 8, 1, 1] there",
    ),
    "labels that were never hidden": (
        ["--stage1.init", "SOURCE", "--stage2.init", "SOURCE", "--stage2.label_dropout", "0.1"],
        "stage2.label_dropout is 0.0 there and 0.1 here",
    ),
    "a prior of other classes": (
        ["--stage1.init", "SOURCE", "--stage2.init", "WASPS"],
        "has 2 classes, and there are 2 here: 1 only there (wasp) and 1 only here (ant)",
    ),
    "a prior with classes for none": (
        ["--stage1.init", "SOURCE", "--stage2.init", "SOURCE", "--data.labels", "False"],
        "has 2 classes, and there are 0 here: 2 only there (ant, bee)",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_named_before_training(
    finished_run,
    command,
    tmp_path,
    others,
    what,
    monkeypatch,
):
    flags, words = REFUSED[what]
    monkeypatch.chdir(tmp_path)
    places = {"SOURCE": finished_run, "NOWHERE": "NOWHERE", "EMPTY": tmp_path / "empty"}
    (tmp_path / "empty").mkdir()
    shutil.copy(finished_run / "config.yaml", tmp_path / "empty")
    if "WASPS" in flags:
        places["WASPS"] = renamed(finished_run, tmp_path / "wasps", ["bee", "wasp"])
    flags = [str(places.get(flag, flag)) for flag in flags]
    code, printed = command("run", "folder", *TINY, "--data.root", others, "--out", tmp_path / "new", *flags)
    assert code == 2 and words in " ".join(printed.split()) and "Traceback" not in printed, printed
    assert not (tmp_path / "new" / "stage1").exists()
    if "stage1." in words or "data." in words:
        assert not (tmp_path / "new").exists()


def test_a_prior_of_an_unrelated_vqvae_is_refused_when_the_codes_are_there_too(finished_run, begin, command):
    run = begin("train-vqvae")
    assert command("encode", run)[0] == 0
    code, printed = command("train-prior", run, "--stage2.init", finished_run)
    here = evaluated(run, "stage1").fingerprint[:12]
    assert code == 2 and f"those here are of {here}, which did not begin from it" in printed
    assert not (run / "stage2").exists()


def test_several_processes_begin_alike(finished_run, tmp_path, others):
    flags = ["--stage1.init", finished_run, "--stage1.steps", 0, "--stage2.init", finished_run]
    flags += ["--stage2.learning_rate", STILL, "--stage2.steps", 1]
    common = [*TINY, "--seed", 1, "--data.root", others, "--out", tmp_path / "run"]
    done = run_processes(["run", "folder", *common, *flags], processes=2)
    assert done.returncode == 0, done.stderr
    for stage in ("stage1", "stage2"):
        there, here = (weights(evaluated(run, stage)) for run in (finished_run, tmp_path / "run"))
        assert all(torch.equal(here[name], x) for name, x in there.items())
