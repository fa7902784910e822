"""Quantizers through the public commands, and which settings go with which."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import FSQ, LFQ, RESIDUAL, SIMVQ, TINY, write_pictures
from tests.launch import run_processes
from vqprior import Generator, Tokenizer, configs
from vqprior.cli import main
from vqprior.runtime import lock

KINDS = {
    "fsq": FSQ,
    "lfq": LFQ,
    "simvq": SIMVQ,
    "ema, residual": [*RESIDUAL, "--stage1.gradient", "rotation", "--stage1.codebook.restart", "0.9"],
    "lfq, residual": [*LFQ, *RESIDUAL, "--stage1.likelihood", "logistic"],
}


@pytest.fixture(scope="module", params=KINDS)
def run(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("quantizer")
    write_pictures(root / "pictures")
    flags = [*TINY, *KINDS[request.param], "--data.root", str(root / "pictures")]
    assert main(["run", "folder", *flags, "--out", str(root / "run")]) == 0
    lock.release_all()
    return root / "run"


def test_its_run_ends_in_samples_and_is_completed_and_shared(run, tmp_path, command):
    figures = json.loads((run / "metrics.json").read_text())["stage1"]
    assert figures["K"] == 16 and figures["mse"] > 0
    picture = next((run.parent / "pictures" / "ant").iterdir())
    flags = ["--hide", "left half", "--label", "ant", "--out", tmp_path / "done"]
    assert command("complete", run, "--image", picture, *flags)[0] == 0
    assert command("export", run, "--half", "True", "--out", tmp_path / "half")[0] == 0
    assert Generator.from_run(tmp_path / "half").sample(3).shape == (3, 8, 8, 3)


def test_its_codes_are_measured_one_by_one_and_decode_to_the_reconstructions(run):
    tokenizer, stage1 = Tokenizer.from_run(run), configs.parse(run / "config.yaml", []).stage1
    images = torch.randint(256, (5, 8, 8, 3), dtype=torch.uint8).numpy()
    codes = tokenizer.encode(images)
    assert codes.shape == (5, 2, 2 * stage1.codes_per_position)
    gap = tokenizer.decode(codes).astype(int) - tokenizer.reconstruct(images).astype(int)
    assert abs(gap).max() <= 1
    figures = json.loads((run / "metrics.json").read_text())["stage1"]
    several = {"usage_of_1", "usage_of_2", "perplexity_of_1", "perplexity_of_2"}
    assert several & figures.keys() == (several if stage1.residual else set())
    each = 16 * stage1.codes_per_position if stage1.residual else 16
    assert len(figures["code_counts"]) == each
    assert sum(figures["code_counts"]) == figures["images"] * 4 * stage1.codes_per_position


@pytest.mark.slow
def test_its_stopped_run_goes_on_bit_for_bit(run, tmp_path):
    given = run.parent / "pictures"
    stage1 = configs.flatten({"stage1": configs.read_yaml(run / "config.yaml")["stage1"]})
    flags = configs.as_flags({name: value for name, value in stage1.items() if value is not None})
    arguments = ["run", "folder", *TINY, *flags, "--data.root", given, "--out", tmp_path / "run"]
    for stage in ("1", "2"):
        stopped = run_processes(arguments, env={"TEST_STOP_AT": "3", "TEST_STOP_STAGE": stage})
        assert stopped.returncode == 143, stopped.stderr[-3000:]
    assert run_processes(arguments).returncode == 0
    files = sorted(run.glob("stage*/step-00000004/*.safetensors"))
    assert len(files) > 3
    for file in files:
        mine, theirs = load_file(file), load_file(tmp_path / "run" / file.relative_to(run))
        assert all(torch.equal(value, theirs[name]) for name, value in mine.items()), file


def test_a_page_shows_the_codebook_of_codes_that_add_up(run, tmp_path, command):
    """Of the first of them, in the midst of its kind; other quantizers have theirs."""
    assert command("report", run, "--file", tmp_path / "page.html")[0] == 0
    assert "The codebook" in (tmp_path / "page.html").read_text()


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
        (["--stage1.quantizer", "lfq", "--stage1.K", "500"], "type --stage1.K 256, or 512"),
        (["--stage1.lfq.entropy", "0.2"], "type --stage1.quantizer lfq"),
        ([*LFQ, "--stage1.lfq.temperature", "0"], "it must be above 0"),
        ([*SIMVQ, "--stage1.codebook.kmeans", "False"], "stage1.quantizer simvq has no use"),
        (["--stage1.residual", "True"], "type --stage1.codes_per_position 2"),
        ([*RESIDUAL, "--stage1.codebook.normalize", "True"], "leave out one of them"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(flags, words, capsys):
    with pytest.raises(SystemExit) as refusal:
        configs.parse(None, flags)
    said = " ".join(capsys.readouterr().err.replace("\u2502", " ").split())
    assert refusal.value.code == 2 and words in said
