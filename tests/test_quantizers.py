"""A quantizer without a codebook through the public commands, and which settings go with which."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import FSQ, TINY, write_pictures
from tests.launch import run_processes
from vqprior import Generator, configs
from vqprior.configs.schema import Codebook


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("fsq")
    write_pictures(root / "pictures")
    done = run_processes(
        ["run", "folder", *TINY, *FSQ, "--data.root", root / "pictures", "--out", root / "run"]
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return root / "run"


def test_its_run_ends_in_samples_and_is_completed_and_shared(run, tmp_path, command):
    figures = json.loads((run / "metrics.json").read_text())["stage1"]
    assert figures["K"] == 16 and figures["mse"] > 0
    picture = next((run.parent / "pictures" / "ant").iterdir())
    flags = ["--hide", "left half", "--label", "ant", "--out", tmp_path / "done"]
    assert command("complete", run, "--image", picture, *flags)[0] == 0
    assert command("export", run, "--half", "True", "--out", tmp_path / "half")[0] == 0
    assert Generator.from_run(tmp_path / "half").sample(3).shape == (3, 8, 8, 3)


@pytest.mark.slow
def test_its_stopped_run_goes_on_bit_for_bit(run, tmp_path):
    arguments = [
        "run",
        "folder",
        *TINY,
        *FSQ,
        "--data.root",
        run.parent / "pictures",
        "--out",
        tmp_path / "run",
    ]
    for stage in ("1", "2"):
        stopped = run_processes(arguments, env={"TEST_STOP_AT": "3", "TEST_STOP_STAGE": stage})
        assert stopped.returncode == 143, stopped.stderr[-3000:]
    assert run_processes(arguments).returncode == 0
    for file in sorted(run.glob("stage*/step-00000004/*.safetensors")):
        mine, theirs = load_file(file), load_file(tmp_path / "run" / file.relative_to(run))
        assert all(torch.equal(value, theirs[name]) for name, value in mine.items()), file


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--stage1.fsq.levels", "4", "4"], "type --stage1.quantizer fsq"),
        (
            [*FSQ, "--stage1.codebook.restart", "0"],
            "stage1.codebook.restart is 0.0, for which stage1.quantizer fsq has no use",
        ),
        (["--stage1.quantizer", "fsq", "--stage1.fsq.levels", "8", "5"], "type --stage1.K 40"),
        (["--stage1.quantizer", "fsq", "--stage1.fsq.levels", "1", "5"], "it takes numbers from 2"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(flags, words, capsys):
    with pytest.raises(SystemExit) as refusal:
        configs.parse(None, flags)
    said = " ".join(capsys.readouterr().err.replace("\u2502", " ").split())
    assert refusal.value.code == 2 and words in said


def test_former_names_are_read():
    old = [
        "--stage1.codebook",
        "gradient",
        "--stage1.decay=0.9",
        "--stage1.restart",
        "0",
        "--stage1.kmeans",
        "False",
    ]
    stage1 = configs.parse(None, [*old, "--stage1.normalize", "True"]).stage1
    assert stage1.quantizer == "gradient"
    assert stage1.codebook == Codebook(decay=0.9, restart=0, kmeans=False, normalize=True)
