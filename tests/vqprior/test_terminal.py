"""The first and last lines of every command, and what they say to type next, typed."""

import json
import os
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY, write_pictures
from tests.launch import run_processes
from vqprior import configs, onward, terminal
from vqprior.cli import COMMANDS
from vqprior.configs.commands import Check, EncodePictures
from vqprior.configs.errors import command_line
from vqprior.configs.schema import Data
from vqprior.runtime import checkpoint
from vqprior.runtime.run_dir import RunDir

PRIOR = "--stage2.steps 3 --stage2.channels 8 --stage2.layers 2 --stage2.gated_pixelcnn.head 8".split()
FOLDER = ["folder", *TINY, "--data.root", "PHOTOS"]
GOES_TO = {
    "run": (["run", *FOLDER, "--out", "NEW"], "NEW", "evaluate"),
    "check": (["check", *FOLDER, "--out", "NEW"], "NEW/check.png", "run"),
    "check of a run": (["check", "RUN"], "RUN/check.png", "run"),
    "check --write": (["check", *FOLDER, "--out", "NEW", "--write", "NEW.yaml"], "NEW.yaml", "run"),
    "train-vqvae": (["train-vqvae", *FOLDER, "--out", "NEW"], "NEW/stage1", "encode"),
    "encode": (["encode", "RUN"], "RUN/codes", "sample"),
    "encode --pictures": (["encode", "RUN", "--pictures", "PHOTOS", "--out", "NEW"], "NEW", "score"),
    "train-prior": (["train-prior", "RUN"], "RUN/stage2", "sample"),
    "sample": (["sample", "RUN"], "RUN/samples", "evaluate"),
    "sample --out": (["sample", "EXPORT", "--images", "2", "--out", "NEW"], "NEW", "app"),
    "complete": (
        ["complete", "RUN", "--image", "PHOTO", "--hide", "left half", "--label", "ant"],
        "RUN/completions/picture0",
        "app",
    ),
    "score": (["score", "RUN", "--pictures", "PHOTOS", "--out", "NEW"], "NEW/scores.csv", "app"),
    "evaluate": (["evaluate", "RUN", "--only", "likelihood"], "RUN/metrics.json", "report"),
    "report": (["report", "RUN"], "RUN/report.html", "export"),
    "export": (["export", "RUN", "--out", "NEW"], "NEW", "sample"),
    "import-codes": (["import-codes", "CODES", "--out", "NEW"], "NEW", "train-prior"),
    "app": (["app", "RUN"], "a page in the browser", None),
}
"""What is typed, where it says that things go, and the command that it says comes next."""
WITHOUT = {"app": "sample", "report": "export"}
"""What comes next where the extra of that name is not installed."""
BEHIND = {
    "run": TINY,
    "train-prior": PRIOR,
    "sample": ["--images", "2"],
    "evaluate": ["--images", "8", "--classifier_steps", "3", "--only", "reconstruction"],
}
"""What makes that one small."""


@pytest.fixture(scope="module")
def made(finished_run, tmp_path_factory) -> Path:
    """A folder of pictures, an export of a run and codes of it; copied by each test."""
    from vqprior.cli import main
    from vqprior.runtime import lock

    root = tmp_path_factory.mktemp("made")
    shutil.copytree(finished_run, root / "my run")
    write_pictures(root / "photos")
    codes = ["encode", str(root / "my run"), "--pictures", str(root / "photos"), "--out", str(root / "codes")]
    assert main(codes) == 0 and main(["export", str(root / "my run"), "--out", str(root / "export")]) == 0
    lock.release_all()
    return root


@pytest.fixture
def places(made, tmp_path) -> Callable[[str], str]:
    """A name of the table as a path, in a copy that a test may change; the run has a space in its name."""
    shutil.copytree(made, tmp_path / "made")
    root = tmp_path / "made"
    of = {"RUN": root / "my run", "EXPORT": root / "export", "PHOTOS": root / "photos", "NEW": root / "new"}
    of |= {"PHOTO": root / "photos" / "ant" / "picture0.png", "CODES": root / "codes" / "codes.npz"}
    of |= {"NEW.yaml": root / "new.yaml"}

    def place(word: str) -> str:
        name, slash, rest = word.partition("/")
        return f"{of.get(name, name)}{slash}{rest}"

    return place


@pytest.fixture
def served(monkeypatch) -> list[Path]:
    """The runs whose page was asked for; no page is shown."""
    asked: list[Path] = []
    if not onward.has("app"):
        return asked
    from vqprior.app import serve

    monkeypatch.setattr(serve, "serve", lambda settings, run: asked.append(run.path))
    return asked


def test_no_command_is_forgotten():
    assert {words[0] for words, *_ in GOES_TO.values()} == COMMANDS.keys() - {"ls", "doctor"}


@pytest.mark.parametrize("case", GOES_TO)
def test_a_command_says_what_it_does_and_what_to_type_next(case, command, places, served):
    words, writes, following = GOES_TO[case]
    if words[0] == "app" and not onward.has("app"):
        pytest.skip("the extra app is not installed")
    if following in WITHOUT and not onward.has(following):
        following = WITHOUT[following]
    code, printed = command(*map(places, words))
    assert code == 0, printed
    first, *others = printed.splitlines()
    assert first.startswith(f"{words[0]}: ") and " -> " in first
    on_what = next(line for line in others[:2] if line.strip().startswith("on cpu"))
    assert "1 process" in on_what and printed.count("on cpu, ") == 1
    assert ("fp32" in on_what) == (words[0] not in ("check", "import-codes"))
    made, last = "\n".join(others[:-1]), others[-1]
    if words[0] == "app":
        assert served == [Path(places("RUN"))] and writes in first
        return
    assert (Path(places(writes))).exists() and places(writes) in made
    assert last.startswith("next: ") and printed.count("next: ") == 1

    program, name, *rest = shlex.split(last.removeprefix("next: "))
    assert (program, name) == ("vqprior", following)
    code, printed = command(name, *rest, *BEHIND.get(name, []))
    assert code == 0, printed
    assert name != "app" or served


def test_the_list_and_the_doctor_say_what_to_type_next(command, places):
    code, printed = command("ls", Path(places("RUN")).parent)
    assert code == 0 and printed.splitlines()[-1] == f"next: vqprior sample {shlex.quote(places('RUN'))}"
    code, printed = command("doctor")
    program, *words = shlex.split(printed.splitlines()[-1].removeprefix("next: "))
    assert (code, program) == (0, "vqprior")
    small = [*TINY, "--stage2.label_dropout", 0.2, "--data.source", "folder", "--data.root", places("PHOTOS")]
    assert command(*words, *small, "--out", places("NEW"))[0] == 0


def test_what_comes_next_is_for_the_device_that_was_named(command, places):
    few = ["--images", 2, "--out", places("NEW")]
    for device, behind in ((["--device", "cpu"], " --device cpu"), (["--device", "auto"], ""), ([], "")):
        code, printed = command("sample", places("RUN"), *few, *device)
        run = shlex.quote(places("RUN"))
        assert (code, printed.splitlines()[-1]) == (0, f"next: vqprior evaluate {run}{behind}")
        shutil.rmtree(places("NEW"))


@pytest.mark.slow
def test_paths_that_look_like_flags_or_cannot_be_shown_are_named(finished_run, tmp_path, monkeypatch):
    """What looks like a flag is named as a path; a terminal that cannot show a name shows its bytes."""
    monkeypatch.chdir(tmp_path)
    strict = {"PYTHONIOENCODING": "utf-8:strict"}
    for name, expected in (("-dash", 0), (os.fsdecode(b"bad\xff"), 2)):  # safetensors opens no such path
        try:
            shutil.copytree(finished_run, name)
        except OSError:  # on Macs names are UTF-8
            continue
        done = run_processes(["sample", f"./{name}", "--images", 1, "--out", f"of{name}"], env=strict)
        assert done.returncode == expected, done.stderr
        assert expected or " ./-dash" in done.stdout.splitlines()[-1]
    assert command_line("app", Path("-dash")) == "vqprior app ./-dash"
    assert command_line("sample", Path("runs") / "-x", "--images", 3) == "vqprior sample runs/-x --images 3"
    listed = run_processes(["ls", "."], env=strict)
    made = [*tmp_path.iterdir()]
    assert listed.returncode == 0 and "-dash" in listed.stdout
    assert "bad\\udcff" in listed.stdout or not [path for path in made if path.name.startswith("bad")]
    for path in made:
        shutil.rmtree(path)


def test_two_processes_say_it_once(places):
    done = run_processes(["sample", places("RUN"), "--images", 2, "--out", places("NEW")], processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sample: 2 images of ") == done.stdout.count("next: vqprior evaluate ") == 1
    assert "on cpu, fp32, 2 processes of 1 thread" in done.stdout


def test_what_needs_no_network_is_on_the_cpu(monkeypatch):
    monkeypatch.setattr(terminal, "device_of_process", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(terminal, "name_of", lambda device: "a card")
    assert terminal._on_what(None) == "on cpu, 1 process"
    assert terminal._on_what("bf16") == "on cuda:0 (a card), bf16, 1 process"


def test_a_command_that_fails_says_nothing_of_what_comes_next(command, places):
    code, printed = command("sample", places("RUN"), "--label", "wasp")
    assert code == 2 and "next: " not in printed


def test_a_run_of_two_levels_goes_on_with_the_prior_that_it_lacks(tmp_path):
    run = RunDir(tmp_path / "run")
    assert onward.after_training(run, 2) == ("encode", run.path)
    weights = {"model": {"w": torch.zeros(1)}}
    run.codes.mkdir(parents=True)
    assert onward.after_training(run, 2) == ("train-prior", run.path)
    checkpoint.save(run.stage2, 4, weights, {}, 1.0)
    checkpoint.save(run.stage2_of(1), 2, weights, {}, None)  # not evaluated yet: nothing can be drawn from it
    assert onward.after_training(run, 2) == ("train-prior", run.path)
    pictures = EncodePictures(pictures="photos", out="codes")
    assert onward.after_encoding(run, pictures, 2) == ("train-prior", run.path)
    checkpoint.save(run.stage2_of(1), 4, weights, {}, 1.0)
    assert onward.after_training(run, 2) == ("sample", run.path)
    assert onward.after_encoding(run, pictures, 2)[0] == "score"


def test_a_run_of_one_class_is_measured_with_all_of_them(command, places):
    """And one whose pictures are elsewhere is sampled again."""
    run = RunDir(Path(places("RUN")))
    config = run.config()
    run.config_file.write_text(configs.dump(replace(config, sample=replace(config.sample, label="ant"))))
    code, printed = command("sample", run.path, "--images", 2, "--out", places("NEW"))
    assert code == 0 and printed.splitlines()[-1].endswith("--sample.label ''"), printed
    gone = replace(config, data=replace(config.data, root="NOWHERE"))
    run.config_file.write_text(configs.dump(gone))
    assert onward.after_sampling(run, Path("out"))[0] != "evaluate"


def test_codes_of_another_checkpoint_of_stage_one_are_encoded_anew(places):
    """Unless a prior has learnt them."""
    run = RunDir(Path(places("RUN")))
    manifest = checkpoint.best(run.stage1).path / "manifest.json"
    saved = json.loads(manifest.read_text())
    saved["files"] = dict.fromkeys(saved["files"], "of other weights")
    manifest.write_text(json.dumps(saved))
    assert onward.after_training(run, 1) == ("sample", run.path)
    shutil.rmtree(run.stage2)
    assert onward.after_training(run, 1) == ("encode", run.path)


def test_pictures_are_read_again_as_they_were(places):
    run = RunDir(Path(places("RUN")))
    settings = EncodePictures(pictures="photos", out="codes", range=(0.0, 9.0), on_error="skip")
    (_, _, *words) = onward.after_encoding(run, settings, 1)
    flags = dict(pictures=["photos"], range=["0.0", "9.0"], on_error=["skip"], out=[Path("codes-scores")])
    assert words == [word for name, values in flags.items() for word in (f"--{name}", *values)]
    data = run.config().data
    assert onward.after_measuring(run, data, 1) == ("report", run.path)
    moved = replace(data, root="elsewhere")
    assert onward.after_measuring(run, moved, 1) == ("report", run.path, "--data.root", "elsewhere")
    shutil.rmtree(run.codes)  # of an export, say, whose stage one was measured alone
    assert onward.after_measuring(run, moved, 1) == ("encode", run.path, "--data.root", "elsewhere")
    default = Check.of(replace(run.config(), out=str(run.path)))
    checked = replace(default, data=replace(moved, size=(4, 4)))
    again = ("run", run.path, "--data.root", "elsewhere")  # other sizes the run would refuse
    assert onward.after_checking(checked, str(run.path), default, {}) == again


def test_without_its_extras_nothing_is_said_that_would_be_refused(places, tmp_path, monkeypatch):
    monkeypatch.setattr(onward, "has", lambda extra: False)
    measured, run = RunDir(Path(places("RUN"))), RunDir(tmp_path / "run")
    assert onward.after_measuring(measured, Data(), 1) == onward.to_share(measured)
    assert onward.to_share(run) == ("export", run.path, "--out", tmp_path / "run-export")
    (tmp_path / "run-export").mkdir()
    assert onward.to_share(run)[-1] == tmp_path / "run-export-2"
    assert onward.to_play(run)[:2] == ("sample", run.path)
    drawn = tmp_path / "drawn"  # where the samples of an export went
    drawn.mkdir()
    others = onward.after_sampling(run, drawn)
    assert others == ("sample", run.path, "--seed", 1, "--out", tmp_path / "drawn-2")
    assert onward.to_begin() == ("--help",)
    monkeypatch.undo()
    monkeypatch.setattr(onward, "requirements", lambda package: [])  # in a clone that is not installed
    assert onward.to_begin() == ("--help",)


def test_the_current_folder_is_no_bad_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert onward.free(Path(), "export") == Path(f"{tmp_path}-export")
    assert onward.free(Path(".."), "export") == Path(f"{tmp_path.parent}-export")
