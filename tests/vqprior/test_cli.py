"""The user's mistakes: each gives one clear message and exit code 2, and harms nothing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import TINY, colour, write_pictures
from tests.launch import environment, run_processes
from vqprior.cli import COMMANDS
from vqprior.configs.errors import UserError
from vqprior.runtime.run_dir import RunDir

OF_RUNS = sorted(COMMANDS.keys() - {"import-codes", "ls", "doctor"})


@pytest.fixture
def run(finished_run, tmp_path) -> Path:
    """A copy of a finished run that a test may harm."""
    shutil.copytree(finished_run, tmp_path / "run")
    return tmp_path / "run"


def files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


MISTAKES = {
    "no such command": (["trian-vqvae", "folder"], "did you mean train-vqvae"),
    "no command at all": (["--stage1.K", "3"], "the commands are"),
    "no target": (["run"], "needs a preset or a run directory"),
    "no such preset": (["run", "mnist6k"], "mnist5k"),
    "flag with a typo": (["run", "folder", "--stage1.stpes", "3"], "--stage1.steps"),
    "word for a number": (["run", "folder", "--stage1.K", "many"], "many"),
    "unknown choice": (["run", "folder", "--precision", "fp8"], "bf16"),
    "unknown source": (["run", "folder", "--data.source", "cifar11"], "cifar10"),
    "factor no power of two": (["run", "folder", "--stage1.factor", "3"], "power of two"),
    "size and factor": (["run", "mnist5k", "--data.size", "30", "32"], "take 28 or 32, or another factor"),
    "size and levels": (
        ["run", "folder", "--data.size", "36", "32"],
        "halved for each of 2 levels: 8); take 32 or 40, another factor, or --stage1.levels 1",
    ),
    "size that one level does not divide either": (
        ["run", "folder", "--data.size", "36", "34"],
        "take 32 or 40, or another factor",
    ),
    "levels": (["run", "folder", "--stage1.levels", "5"], "from 1 to 4"),
    "fine prior of one level": (["run", "mnist5k", "--stage2_fine.layers", "3"], "type --stage1.levels 2"),
    "fine prior": (
        ["run", "folder", "--stage2_fine.dropout", "1"],
        "stage2_fine.dropout is 1.0",
    ),
    "seed of more than 64 bits": (["run", "folder", "--seed", str(2**63)], "a whole number of 64 bits"),
    "seed of a score": (
        ["score", "RUN", "--pictures", "PICTURES", "--out", "FRESH", "--seed", str(2**63)],
        "a whole number of 64 bits",
    ),
    "no steps": (["run", "folder", "--stage2.steps", "0"], "at least 1"),
    "even kernel": (["run", "folder", "--stage2.gated_pixelcnn.kernel", "4"], "odd"),
    "too many codes": (["run", "folder", "--stage1.K", "70000"], "65536"),
    "eval and save": (["run", "folder", "--stage1.eval_every", "3", "--stage1.save_every", "2"], "multiple"),
    "batch and accumulate": (
        ["run", "folder", "--stage1.batch_size", "6", "--stage1.accumulate", "4"],
        "multiple",
    ),
    "no such folder": (["run", "folder", "--data.root", "NOWHERE"], "--data.root"),
    "no word for the pictures": (["run", "folder", "--data.root", ""], "data.root is '', which is no place"),
    "no word for a data set": (
        ["run", "mnist", "--data.root", "", "--out", "FRESH"],
        "data.root is '', which is no place",
    ),
    "no word for the run": (["run", "folder", "--out", ""], "vqprior run needs a folder for the new run"),
    "no word for a checked run": (["check", "folder", "--out", ""], "vqprior check needs a folder"),
    "decay of one": (["run", "folder", "--stage2.average", "1"], "0.999"),
    "negative temperature": (["sample", "RUN", "--temperature", "-1"], "temperature is -1; it is from 1e-30"),
    "top_p above one": (["sample", "RUN", "--top_p", "1.5"], "top_p is 1.5; it is from 1e-30 to 1"),
    "guidance without training for it": (["sample", "RUN", "--guidance", "2"], "stage2.label_dropout"),
    "guided samples of a prior that will not know how": (
        ["run", "folder", "--sample.guidance", "2", "--data.labels", "False"],
        "stage2.label_dropout",
    ),
    "more steps of a stage that others build on": (
        ["run", "RUN", "--stage1.steps", "9"],
        "the prior has learnt from its codes",
    ),
    "flags of a stage that is over": (
        ["encode", "RUN", "--data.flip", "False"],
        "data.flip is True there and False now",
    ),
    "no such class": (["sample", "RUN", "--label", "wasp"], "0 ant, 1 bee"),
    "number beyond the classes": (["sample", "RUN", "--label", "2"], "0 ant, 1 bee"),
    "weights of no network": (
        ["evaluate", "RUN", "--features_weights", "inception.pth"],
        "--features inception-v3-compat",
    ),
    "no images": (["sample", "RUN", "--images", "0"], "at least 1"),
    "other K than begun with": (["train-vqvae", "RUN", "--stage1.K", "8"], "stage1.K is 16 there and 8 now"),
    "other layers than begun with": (
        ["train-prior", "RUN", "--stage2.layers", "3"],
        "stage2.layers is 2 there",
    ),
    "other seed than begun with": (["run", "RUN", "--seed", "5"], "--out"),
    "a folder that is no run": (["sample", "PICTURES"], "vqprior check folder --data.root"),
    "a run that is not there": (["sample", "runs/step"], "no run directory 'runs/step'"),
    "a preset with a typo": (["run", "foldr"], "did you mean folder?"),
    "completion without a picture": (["complete", "RUN", "--hide", "lower half"], "--image"),
    "completion with nothing hidden": (
        ["complete", "RUN", "--image", "PHOTO"],
        "nothing says what is hidden",
    ),
    "hidden in two ways": (
        ["complete", "RUN", "--image", "PHOTO", "--hide", "left half", "--box", "0", "0", "2", "2"],
        "--box and --hide says what is hidden; give exactly one",
    ),
    "no such half": (["complete", "RUN", "--image", "PHOTO", "--hide", "lower"], "lower half"),
    "no such picture": (
        ["complete", "RUN", "--image", "NOWHERE", "--hide", "left half"],
        "which --image names",
    ),
    "no picture": (
        ["complete", "RUN", "--image", "TEXT", "--hide", "left half"],
        "cannot be read as an image",
    ),
    "no such mask": (["complete", "RUN", "--image", "PHOTO", "--mask", "NOWHERE"], "which --mask names"),
    "box outside": (
        ["complete", "RUN", "--image", "PHOTO", "--box", "12", "0", "2", "2"],
        "12 rows and 10 columns",
    ),
    "box of no size": (
        ["complete", "RUN", "--image", "PHOTO", "--box", "1", "1", "0", "2"],
        "at least 1 pixel",
    ),
    "completion of a class it must be told": (
        ["complete", "RUN", "--image", "PHOTO", "--hide", "left half"],
        "give a label, one of 0 ant, 1 bee",
    ),
    "completion of no such class": (
        ["complete", "RUN", "--image", "PHOTO", "--hide", "left half", "--label", "wasp"],
        "0 ant, 1 bee",
    ),
    "fewer draws than completions": (
        ["complete", "RUN", "--image", "PHOTO", "--hide", "left half", "--images", "6", "--draws", "3"],
        "at least images (6)",
    ),
    "completion before there is a run": (
        ["complete", "mnist5k", "--image", "PHOTO", "--hide", "left half"],
        "there is no run",
    ),
    "prior before codes": (["train-prior", "folder", "--out", "FRESH"], "train-vqvae"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake(mistake, command, run, tmp_path):
    arguments, words = MISTAKES[mistake]
    pictures = write_pictures(tmp_path / "pictures")
    places = {"RUN": run, "NOWHERE": tmp_path / "nowhere", "PICTURES": pictures, "FRESH": tmp_path / "fresh"}
    places |= {"PHOTO": pictures / "ant" / "picture0.png", "TEXT": run / "config.yaml"}
    before = files(run)
    out = (
        ["--out", str(tmp_path / "new")] if arguments[1:2] == ["folder"] and "--out" not in arguments else []
    )
    code, printed = command(*[places.get(a, a) for a in arguments], *out)
    assert code == 2, printed
    assert words in " ".join(printed.replace("│", " ").split()), printed
    assert "Traceback" not in printed
    assert files(run) == before


def test_sampling_with_another_vqvae_is_refused(command, run, tmp_path, pictures):
    """A prior belongs to the VQ-VAE whose codes it learnt."""
    other = tmp_path / "other"
    assert (
        command("train-vqvae", "folder", *TINY, "--data.root", pictures, "--seed", 1, "--out", other)[0] == 0
    )
    shutil.rmtree(run / "stage1")
    shutil.copytree(other / "stage1", run / "stage1")
    code, printed = command("sample", run, "--images", 1)
    assert code == 2 and "do not belong together" in printed


def test_folders_of_the_user_are_never_deleted(command, run, tmp_path):
    (tmp_path / "out" / "images").mkdir(parents=True)
    (tmp_path / "out" / "images" / "holiday.jpg").write_bytes(b"mine")
    code, printed = command("sample", run, "--images", 1, "--out", tmp_path / "out")
    assert code == 2 and "nothing that `sample` wrote" in printed
    assert (tmp_path / "out" / "images" / "holiday.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "RUN", "--images", 2],
        ["complete", "RUN", "--image", "PHOTO", "--hide", "left half", "--label", "ant"],
        ["score", "RUN", "--pictures", "PICTURES"],
        ["encode", "RUN", "--pictures", "PICTURES"],
    ],
    ids=lambda words: words[0],
)
def test_results_are_not_put_among_pictures_of_the_user(command, run, tmp_path, pictures, words):
    """They would be data of the next run, or stand in place of one; a folder of ours is written anew."""
    places = {"RUN": run, "PICTURES": pictures, "PHOTO": pictures / "ant" / "picture0.png"}
    words = [places.get(word, word) for word in words]
    before = sorted(pictures.rglob("*"))
    code, printed = command(*words, "--out", pictures)
    assert code == 2 and f"{pictures} holds 'ant' and 1 others" in printed, printed
    assert sorted(pictures.rglob("*")) == before
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".hidden").touch()
    for _ in range(2):
        code, printed = command(*words, "--out", tmp_path / "new")
        assert code == 0, printed


def test_samples_of_an_earlier_call_are_replaced_in_words(command, run):
    assert command("sample", run, "--images", 3)[0] == 0
    code, printed = command("sample", run, "--images", 2)
    assert code == 0 and "in place of the 3 images of an earlier call" in printed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "RUN", "--data.root", "OTHERS"], "are other pictures now"),
        (["run", "RUN", "--data.root", "NOWHERE"], "which is not a folder"),
        (["run", "RUN", "--sample.label", "hut"], "hut"),
        (["train-vqvae", "RUN", "--data.root", "OTHERS"], "are other pictures now"),
        (["train-prior", "RUN", "--stage2.steps", 9, "--stage2.init", "NOWHERE"], "stage2.init"),
    ],
)
def test_a_refused_command_leaves_the_settings_as_they_were(command, run, tmp_path, words, said):
    """Else the next one, with nothing typed, would be refused as well."""
    others = write_pictures(tmp_path / "others")
    for path in others.rglob("*.png"):
        colour(99).save(path)
    places = {"RUN": run, "OTHERS": others, "NOWHERE": tmp_path / "nowhere"}
    files = [run / "config.yaml", run / "run.json"]
    before = [file.read_bytes() for file in files]
    code, printed = command(*(places.get(word, word) for word in words))
    assert code == 2 and said in printed, printed
    assert [file.read_bytes() for file in files] == before
    assert command("run", run)[0] == 0


@pytest.mark.slow
def test_two_processes_that_are_refused_leave_the_settings_as_they_were(run, tmp_path):
    before = (run / "config.yaml").read_bytes()
    done = run_processes(["run", run, "--data.root", tmp_path / "nowhere"], processes=2)
    assert done.returncode != 0 and done.stderr.count("which is not a folder") == 1, done.stderr
    assert (run / "config.yaml").read_bytes() == before


def test_a_new_run_that_is_refused_leaves_nothing(command, tmp_path, pictures):
    out = tmp_path / "new"
    flags = [*TINY, "--out", out]
    code, printed = command("run", "folder", *flags, "--data.root", pictures, "--sample.label", "hut")
    assert code == 2 and not out.exists(), printed
    flat, guided = write_pictures(tmp_path / "flat", 24, ()), ["--stage2.label_dropout", 0.1]
    code, printed = command("run", "folder", *flags, *guided, "--data.root", flat, "--sample.guidance", 2)
    assert code == 2 and "type --sample.guidance 1" in printed and not out.exists(), printed
    few = write_pictures(tmp_path / "few", 2, ())
    code, printed = command("run", "folder", *flags, "--data.root", few)
    assert code == 2 and "add pictures" in printed and not out.exists(), printed
    assert command("train-vqvae", "folder", *flags, "--data.root", pictures)[0] == 0


def test_what_a_start_measured_that_learnt_nothing_does_not_hold_for_other_pictures(
    command, tmp_path, monkeypatch
):
    """It was killed before its first checkpoint; they would be all but white."""
    for name, high in (("dark", 4000), ("bright", 65000)):
        (tmp_path / name).mkdir()
        for index in range(24):
            pixels = np.random.default_rng(index).integers(0, high, (8, 8), dtype=np.uint16)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    flags = [*TINY, "--data.channels", 1, "--out", tmp_path / "new", "--data.root"]
    with monkeypatch.context() as killed:
        killed.setattr("vqprior.stage1_vqvae.train.train", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            command("train-vqvae", "folder", *flags, tmp_path / "dark", "--precision", "bf16")
    assert RunDir(tmp_path / "new").config().data.range == (0, 4095)
    code, printed = command("train-vqvae", "folder", *flags, tmp_path / "bright", "--precision", "auto")
    assert code == 0 and "0 becomes black, 65535 white" in printed, printed
    code, printed = command("train-vqvae", "folder", *flags, tmp_path / "bright", "--precision", "auto")
    assert code == 0 and RunDir(tmp_path / "new").config().data.range == (0, 65535), printed


def test_a_run_that_trained_and_failed_keeps_its_settings(command, tmp_path, pictures):
    """Its curves are there, and what was typed is what one looks at."""
    flags = [*TINY, "--data.root", pictures, "--out", tmp_path / "new", "--stage1.steps", 30]
    code, printed = command("train-vqvae", "folder", *flags, "--stage1.learning_rate", 1e30)
    assert code == 2 and "not finite" in printed, printed
    assert RunDir(tmp_path / "new").config().stage1.learning_rate == 1e30


def test_what_was_learnt_before_a_refusal_stays_with_its_settings(command, run, tmp_path, monkeypatch):
    """More steps, and then samples that are refused."""
    from vqprior.sampling import generate

    def refuse(*_: object) -> None:
        raise UserError("no samples today")

    monkeypatch.setattr(generate, "generate", refuse)
    code, printed = command("run", run, "--stage2.steps", 6)
    assert code == 2 and "no samples today" in printed
    assert RunDir(run).config().stage2.steps == 6 and (run / "stage2" / "step-00000006").is_dir()


def test_a_folder_named_like_a_preset_does_not_hide_it(command, tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    monkeypatch.chdir(tmp_path)
    code, printed = command("run", "mnist", "--data.root", "mnist")
    assert code == 2 and "download failed" in printed


def test_training_a_prior_on_other_codes_is_refused(command, run):
    header = run / "codes" / "header.json"
    header.write_text(json.dumps(json.loads(header.read_text()) | {"vqvae": "0" * 64}))
    code, printed = command("train-prior", run, "--stage2.steps", 8)
    assert code == 2 and "000000000000" in printed


def test_other_pictures_are_noticed(command, run, tmp_path):
    """Of the same names, in another folder: two are named, and the run can go on without them."""
    others = write_pictures(tmp_path / "others")
    for name in ("ant/picture0.png", "bee/picture7.png"):
        colour(99).save(others / name)
    for step in ("encode", "evaluate", "train-vqvae"):
        code, printed = command(step, run, "--data.root", others)
        assert code == 2 and "2 of the 24 pictures" in printed, printed
        assert "ant/picture0.png" in printed and "bee/picture7.png" in printed
        assert printed.count("it is another picture now") == 1
        assert "--data.on_error skip" in printed
    code, printed = command(
        "evaluate", run, "--data.root", others, "--data.on_error", "skip", "--only", "likelihood"
    )
    assert code == 0 and "2 pictures left out that could not be read" in printed, printed
    assert "bee/picture7.png\tit is another picture now" in (run / "skipped.txt").read_text()


def test_pictures_that_come_later_are_no_part_of_a_run(command, run, tmp_path):
    write_pictures(tmp_path / "more", 30)
    code, printed = command("encode", run, "--data.root", tmp_path / "more")
    assert code == 0 and "6 came later and are no part of this run" in printed, printed


@pytest.mark.parametrize("record", ['{"format": 2, "runs": {}}', '{"form', '{"format": 1}', "[]", "\0"])
def test_a_run_of_a_newer_version_or_with_a_damaged_record_is_refused_by_all(command, run, record):
    words = (
        "format 2, this version reads up to 1: upgrade vqprior" if "2" in record else "run.json is damaged"
    )
    (run / "run.json").write_text(record)
    before = files(run)
    for arguments in [[name, run] for name in OF_RUNS] + [["run", "folder", *TINY, "--out", run]]:
        code, printed = command(*arguments)
        assert code == 2 and words in printed and "Traceback" not in printed, printed
    assert files(run) == before
    (run / "config.yaml").unlink()
    code, printed = command("run", "folder", *TINY, "--out", run)
    assert code == 2 and words in printed and not (run / "config.yaml").exists()


@pytest.mark.parametrize("name", OF_RUNS)
def test_help_explains_every_flag(command, name):
    code, printed = command(name, "--help-all")
    assert code == 0
    drawing = (("--top_p", "--label", "--out"), "likeliest codes")
    own = {
        "sample": drawing,
        "complete": drawing,
        "export": (("--out", "--half"), "Store weights in 16 bits"),
        "score": (("--quantile", "--restorations", "--label", "--out"), "drawn anew"),
        "app": (("--host", "--port"), "there is no password"),
    }
    whole = (("--stage1.beta", "--data.root", "--out", "--precision"), "moves the encoder")
    flags, words = own.get(name, whole)
    assert all(flag in printed for flag in flags) and words in " ".join(printed.replace("│", " ").split())


def test_bare_call_shows_the_commands(command):
    assert "train-prior" in command()[1]
    assert command("--help")[0] == 0 and "mnist5k" in command("--help")[1]


def test_a_typo_is_answered_before_torch_is_imported():
    code = "import sys; from vqprior import cli; cli.main(['runn', 'x']); print('torch' in sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment(None), capture_output=True, text=True
    ).stdout
    assert out.strip() == "False"


def test_fp16_needs_a_gpu(command, tmp_path, pictures):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    code, printed = command(
        "train-vqvae",
        "folder",
        *TINY,
        "--data.root",
        pictures,
        "--out",
        tmp_path / "a",
        "--precision",
        "fp16",
    )
    assert code == 2 and "--precision auto" in printed
