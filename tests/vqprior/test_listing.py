"""`vqprior ls` says of each run what its files say, and no run that is damaged hides the others."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch import ROOT, environment
from vqprior.listing import find_runs, summary_of
from vqprior.runtime.lock import is_locked, lock, release_all


@pytest.fixture
def run(finished_run, tmp_path) -> Path:
    """A copy of a finished run, in a folder of runs."""
    return shutil.copytree(finished_run, tmp_path / "runs" / "mine")


def row(printed: str, name: str) -> str:
    return next(line for line in printed.splitlines() if name in line.split("  ")[0])


def test_a_finished_run_shows_its_steps_and_figures(command, run):
    code, printed = command("ls", run.parent)
    metrics = json.loads((run / "metrics.json").read_text())
    words = row(printed, "mine")
    assert code == 0 and "trained" in words and words.count("4/4") == 2, printed
    assert f"PSNR {metrics['stage1']['psnr']:.2f} dB" in words
    assert f"{metrics['stage2']['bits_per_code']:.3f} bits/code" in words
    assert f"vqprior sample {run}" in printed


def test_a_stopped_run_shows_how_far_it_came_and_its_best_validation(command, run):
    (run / "metrics.json").unlink()
    shutil.rmtree(run / "stage2" / "step-00000004")
    manifest = run / "stage2" / "step-00000002" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"score": 3.25}))
    printed = command("ls", run.parent)[1]
    words = row(printed, "mine")
    assert "stopped" in words and "4/4" in words and "2/4" in words and "validation 3.250 bits/code" in words
    assert f"next: vqprior run {run}" in printed


@pytest.mark.parametrize("learns, state", [("all", "trained"), ("decoder", "stopped")])
def test_a_stage_one_that_was_stopped_lacks_no_step_once_a_prior_has_learnt(run, learns, state):
    """It stays where it is; but a decoder that learns alone goes on."""
    text = (run / "config.yaml").read_text().replace("train: all", f"train: {learns}")
    (run / "config.yaml").write_text(text.replace("steps: 4", "steps: 9", 1))
    assert summary_of(run).cells()[1:4] == (state, "4/9", "4/4")


def test_a_run_that_has_only_begun_is_at_step_0(run):
    for folder in ("stage1", "stage2", "codes"):
        shutil.rmtree(run / folder)
    (run / "metrics.json").unlink()
    summary = summary_of(run)
    assert summary.cells()[1:] == ("stopped", "0/4", "0/4", "")


def test_each_level_has_its_steps(run):
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("levels: 1", "levels: 2"))
    shutil.copytree(run / "stage2" / "step-00000002", run / "stage2-1" / "step-00000002")
    summary = summary_of(run)
    assert summary.state == "stopped" and summary.cells()[3] == "4/4 + 2/20,000"


def test_codes_of_others_have_no_stage_one(command, run):
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("source: folder", "source: codes"))
    shutil.rmtree(run / "stage2")
    summary = summary_of(run)
    assert summary.stage1 is None and summary.state == "stopped"
    assert f"next: vqprior train-prior {run}" in command("ls", run.parent)[1]


def test_a_run_that_a_process_works_on_is_running(run):
    assert not is_locked(run)
    hold = "import sys; from pathlib import Path; from vqprior.runtime.lock import lock\n"
    hold += "lock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(run)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment(None)) as other:
        assert other.stdout.readline() == "held\n"
        assert summary_of(run).state == "running"
        other.communicate("")
    assert summary_of(run).state == "trained"
    lock(run)  # whoever looked has let go
    release_all()


def test_an_export_is_named_as_one(command):
    words = row(command("ls", ROOT / "models")[1], "mnist")
    assert "export" in words and "8,000/8,000" in words and "FD(classifier) 0.46" in words


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("run.json", '{"form', "run.json is damaged"),
        ("run.json", '{"format": 99, "starts": []}', "upgrade vqprior"),
        ("config.yaml", "a: [", "not valid YAML"),
        ("config.yaml", "stage1: {steps: many}", "has stage1.steps 'many'; expected a number"),
    ],
)
def test_a_damaged_run_is_a_line_and_the_others_are_listed(command, run, file, content, words):
    shutil.copytree(run, run.parent / "other")
    (run / file).write_text(content)
    code, printed = command("ls", run.parent)
    assert code == 0 and "unreadable" in row(printed, "mine") and words in printed, printed
    assert "trained" in row(printed, "other")


@pytest.mark.parametrize("name", ["model.safetensors", "average.safetensors"])
def test_figures_of_weights_that_were_trained_on_are_not_those_of_the_run(run, name):
    assert "PSNR" in summary_of(run).figures
    shutil.copytree(run / "stage2" / "step-00000004", run / "stage2" / "step-00000008")
    manifest = run / "stage2" / "step-00000008" / "manifest.json"
    content = json.loads(manifest.read_text())
    assert "PSNR" in summary_of(run).figures  # the same weights
    changed = content | {"score": 3.5, "files": {name: "of others"}}
    manifest.write_text(json.dumps(changed))
    assert summary_of(run).figures == "validation 3.500 bits/code"
    for score in (4.5, float("nan")):  # not the best, and not used
        manifest.write_text(json.dumps(changed | {"score": score}))
        assert "PSNR" in summary_of(run).figures, score


def test_figures_of_a_decoder_that_was_trained_on_are_not_those_of_the_run(run):
    """The codes and the prior are what they were."""
    before, after = (run / "stage1" / f"step-0000000{step}" for step in (4, 8))
    shutil.copytree(before, after)
    content = json.loads((before / "manifest.json").read_text())
    codes = json.loads((run / "codes" / "header.json").read_text())["vqvae"]
    trained_on = content | {"score": 0.0, "files": {"model.safetensors": "of another decoder"}}
    (after / "manifest.json").write_text(json.dumps(trained_on))
    assert "PSNR" in summary_of(run).figures  # it has other codes
    encodes_as = {"vqvae": codes, "weights": "model", "encoding": "as before"}
    trained_on["meta"] = content["meta"] | {"encodes_as": encodes_as}
    (after / "manifest.json").write_text(json.dumps(trained_on))
    assert "PSNR" not in summary_of(run).figures


def test_figures_that_are_damaged_are_left_out(run):
    for content in ("{", "[1]", '{"stage1": 3, "ladder": {"rows": {"samples": {"frechet": "x"}}}}'):
        (run / "metrics.json").write_text(content)
        assert "validation" in summary_of(run).figures
    for name in ("null", '"{}"', "[1]"):
        (run / "metrics.json").write_text(
            f'{{"ladder": {{"distance": {name}, "rows": {{"samples": {{"frechet": 3}}}}}}}}'
        )
        assert summary_of(run).figures == ("{} 3" if name == '"{}"' else "distance 3")


def test_runs_are_found_one_folder_deeper_and_not_inside_a_run(run, tmp_path):
    deeper = shutil.copytree(run, tmp_path / "runs" / "ablations" / "one")
    shutil.copytree(deeper, run / "samples" / "inside")
    (tmp_path / "runs" / "notes.txt").write_text("no run")
    assert [*find_runs(tmp_path / "runs")] == [deeper, run]
    assert [*find_runs(run)] == [run]


@pytest.mark.parametrize("name", ["is_file", "glob"])
def test_folders_that_may_not_be_read_are_passed_over(run, tmp_path, monkeypatch, name):
    (tmp_path / "private").mkdir()
    real = getattr(Path, name)

    def refuse(self: Path, *given: object, **options: object) -> object:
        if "private" in self.parts:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *given, **options)

    monkeypatch.setattr(Path, name, refuse)
    assert [*find_runs(tmp_path)] == [run]


def test_ls_writes_nothing(command, run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    command("ls", run.parent)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_no_folder_and_no_run_are_said_with_what_to_type(command, tmp_path):
    code, printed = command("ls")
    assert code == 2 and "runs is not a folder" in printed and "vqprior run mnist5k" in printed
    os.mkdir(tmp_path / "empty")
    code, printed = command("ls", tmp_path / "empty")
    assert code == 2 and "there is no run in" in printed
