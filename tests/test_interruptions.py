"""Killed, told to stop, out of room, or fed nonsense: nothing is lost, and the run ends like an unbroken
one."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import TINY, write_pictures
from tests.launch import environment, run_processes, start_process

pytestmark = pytest.mark.slow

FILES = [
    *(
        f"{stage}/step-00000004/{name}.safetensors"
        for stage in ("stage1", "stage2")
        for name in ("model", "optimizer")
    ),
    "stage2/step-00000004/average.safetensors",
    *(
        f"codes/{split}-00000.{kind}.npy"
        for split in ("train", "validation", "test")
        for kind in ("codes", "labels")
    ),
    "samples/samples.npz",
    "samples/grid.png",
]
CURVES = [("", "stage1_loss/total"), ("validation", "stage1/mse"), ("", "stage2_loss/bits_per_code")]
"""Folders in a run, and tags."""


def assert_equal_runs(run: Path, unbroken: Path) -> None:
    """Bitwise equal weights, optimizers, averages, code maps and samples; curves with each step once."""
    for file in FILES:
        assert (run / file).read_bytes() == (unbroken / file).read_bytes(), file
    for folder, tag in (
        ("", "stage1_loss/total"),
        ("validation", "stage1/mse"),
        ("", "stage2_loss/bits_per_code"),
    ):
        found, expected = (
            EventAccumulator(str(path / folder)).Reload().Scalars(tag) for path in (run, unbroken)
        )
        assert [(e.step, e.value) for e in found] == [(e.step, e.value) for e in expected]


@pytest.fixture
def arguments(finished_run, tmp_path) -> list:
    """The command of the finished run, into another folder."""
    return [
        "run",
        "folder",
        *TINY,
        "--data.root",
        finished_run.parent / "pictures",
        "--out",
        tmp_path / "run",
    ]


@pytest.mark.parametrize(
    "instant",
    ["replace:5", "replaced:5", "replace:9", "replaced:14", "replace:18", "replaced:21", "replace:26"],
)
def test_killed_at_the_moment_of_writing(finished_run, tmp_path, command, arguments, instant):
    """SIGKILL as a file or a checkpoint takes its name, before and after, over all steps of a run."""
    killed = run_processes(arguments, env={"TEST_KILL_AT": instant})
    assert killed.returncode == -signal.SIGKILL, "the run has fewer writes than that: choose an earlier one"
    code, printed = command(*arguments)
    assert code == 0, printed
    assert_equal_runs(tmp_path / "run", finished_run)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_told_to_stop(finished_run, tmp_path, command, arguments, number):
    """The step is finished, a checkpoint is written, the exit code names the signal, and the same command
    goes on."""
    if number == signal.SIGINT:  # a second Ctrl-C does not wait for that
        twice = {"TEST_STOP_AT": "3", "TEST_SIGNAL": str(int(number)), "TEST_SIGNAL_TIMES": "2"}
        stopped = run_processes(arguments, env=twice)
        assert (
            stopped.returncode == 130
            and "stopped at once" in stopped.stderr
            and "Traceback" not in stopped.stderr
        )
        assert [path.name for path in (tmp_path / "run" / "stage1").iterdir()] == ["step-00000002"]
    for stage, step in (("1", 3), ("2", 1)):
        stopped = run_processes(
            arguments,
            env={"TEST_STOP_AT": f"{step}", "TEST_STOP_STAGE": stage, "TEST_SIGNAL": str(int(number))},
        )
        assert stopped.returncode == 128 + number, stopped.stderr
        assert f"stage {stage}: stopped after step {step} as told" in stopped.stdout
        assert (tmp_path / "run" / f"stage{stage}" / f"step-{step:08d}").is_dir()
    assert command(*arguments)[0] == 0
    assert_equal_runs(tmp_path / "run", finished_run)


def test_told_to_stop_while_worker_processes_decode(tmp_path, arguments):
    """The signal reaches the workers too, as from torchrun or SLURM, and only the main process heeds it."""
    flags = ["--data.memory_gb", 0, "--data.workers", 2, "--stage1.steps", 100000]
    process = start_process([*arguments, *flags], session=True)
    wait_for(tmp_path / "run" / "stage1" / "step-00000004", process)
    os.killpg(process.pid, signal.SIGTERM)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, printed
    assert "as told, with a checkpoint" in printed


def test_an_error_ends_the_run_though_worker_processes_heed_no_signal(finished_run, tmp_path):
    pictures = write_pictures(tmp_path / "pictures")
    (pictures / "ant" / "picture0.png").write_bytes(b"no picture")
    done = run_processes(
        [
            "train-vqvae",
            "folder",
            *TINY,
            "--data.root",
            pictures,
            "--data.memory_gb",
            0,
            "--data.workers",
            2,
            "--out",
            tmp_path / "a",
        ]
    )
    assert done.returncode == 2 and "picture0.png" in done.stderr and "Traceback" not in done.stderr


def test_one_of_two_processes_is_told_and_both_stop(tmp_path, arguments):
    stopped = run_processes(arguments, processes=2, env={"TEST_STOP_AT": "3", "TEST_STOP_RANK": "1"})
    assert stopped.returncode != 0
    # torchrun's report
    assert re.findall(r"exitcode +: (-?\d+)", stopped.stderr) == ["143", "143"], stopped.stderr
    assert stopped.stdout.count("stopped after step 3") == 1
    assert (tmp_path / "run" / "stage1" / "step-00000003").is_dir()
    assert run_processes(arguments, processes=2).returncode == 0


@pytest.mark.parametrize(
    ("number", "torchrun"),
    [
        (signal.SIGTERM, ()),
        (signal.SIGUSR1, ("--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1")),
    ],
    ids=["SIGTERM", "SIGUSR1"],
)
def test_a_signal_to_torchrun_reaches_the_processes(tmp_path, arguments, number, torchrun):
    process = start_process([*arguments, "--stage1.steps", 100000], processes=2, torchrun=torchrun)
    wait_for(tmp_path / "run" / "stage1" / "step-00000004", process)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=60)
    step = re.search(r"stopped after step (\d+) as told, with a checkpoint", printed)
    assert step, printed
    assert (tmp_path / "run" / "stage1" / f"step-{int(step[1]):08d}").is_dir()


def wait_for(path: Path, process: subprocess.Popen) -> None:
    """Wait until a file is there, and no longer than its process runs."""
    deadline = time.time() + 120
    while not path.exists() and process.poll() is None and time.time() < deadline:
        time.sleep(0.05)
    assert path.exists(), process.stdout.read() if process.poll() is not None else "it takes too long"


def test_a_lost_process_is_started_again_by_torchrun(finished_run, tmp_path, arguments):
    """Two processes, one killed while a checkpoint takes its name: torchrun starts both again, and the run
    goes on."""
    (tmp_path / "marker").mkdir()
    env = {"TEST_KILL_AT": "replace:5", "TEST_KILL_ONCE": str(tmp_path / "marker" / "killed")}
    done = run_processes(arguments, processes=2, env=env, torchrun=("--max-restarts", "3"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "marker" / "killed").exists()
    # torchrun did start it again
    assert len(json.loads((tmp_path / "run" / "run.json").read_text())["starts"]) == 2
    unbroken = [*arguments[:-1], tmp_path / "unbroken"]
    assert run_processes(unbroken, processes=2).returncode == 0
    assert_equal_runs(tmp_path / "run", tmp_path / "unbroken")


def test_a_second_run_on_the_same_directory_is_refused(tmp_path, command, arguments):
    process = start_process([*arguments, "--stage1.steps", 100000])
    try:
        wait_for(tmp_path / "run" / "stage1" / "step-00000002", process)
        code, printed = command(*arguments)
        assert code == 2 and re.search(r"another process \(process \d+ on .+\) works on .+ end it", printed)
    finally:
        process.kill()
        process.wait()
    assert command("train-vqvae", *arguments[1:])[0] == 0  # the crash left no lock behind


@pytest.mark.parametrize("steps", ["train-vqvae", "encode", "train-prior", "sample"])
def test_a_full_disk(finished_run, tmp_path, command, steps):
    """No file may grow beyond a limit: the run stops in words, and goes on once there is room."""
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    for name in {
        "train-vqvae": ["stage1", "codes", "stage2"],
        "encode": ["codes"],
        "train-prior": ["stage2"],
    }.get(steps, []):
        shutil.rmtree(run / name)
    shutil.rmtree(run / "samples")
    before = {p: p.read_bytes() for p in run.rglob("*.safetensors")}
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (LIMITED, {resource.RLIM_INFINITY}));"
    code += f"import sys; from vqprior.cli import main; sys.exit(main(['{steps}', '{run}']))"
    limit = {"train-vqvae": 8000, "encode": 150, "train-prior": 8000, "sample": 500}[steps]
    full = subprocess.run(
        [sys.executable, "-c", code.replace("LIMITED", str(limit))],
        env=environment(None),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert full.returncode == 2, full.stderr
    assert "ulimit -f unlimited" in full.stderr and "Traceback" not in full.stderr
    assert all(path.read_bytes() == content for path, content in before.items())
    assert command("run", run)[0] == 0
    for file in FILES:
        assert (run / file).read_bytes() == (finished_run / file).read_bytes(), file


def test_a_checkpoint_that_cannot_be_written_ends_all_processes_with_one_message(tmp_path, arguments):
    """The write goes on behind the loop's back, on the main process alone, and still no process misses its
    failure."""
    command = ["train-vqvae", *arguments[1:]]
    assert run_processes([*command, "--stage1.steps", 2], processes=2).returncode == 0
    blocked = tmp_path / "run" / "stage1" / "step-00000004.tmp"
    blocked.touch()  # where the folder of that name is about to be made
    failed = run_processes(command, processes=2)
    assert failed.returncode != 0 and failed.stderr.count(f"vqprior: File exists: {blocked}.") == 1
    # torchrun's own
    assert not [line for line in failed.stderr.splitlines() if line.startswith("Traceback")][1:]
    blocked.unlink()
    assert run_processes(command, processes=2).returncode == 0
    assert (tmp_path / "run" / "stage1" / "step-00000004").is_dir()


def test_a_step_that_is_not_finite_is_left_out_and_ten_end_the_run(tmp_path, command, monkeypatch):
    import torch

    from vqprior.runtime.checkpoint import newest
    from vqprior.stage1_vqvae.vqvae import VQVAE

    pictures, real, calls = write_pictures(tmp_path / "pictures"), VQVAE._encoded, 0
    bad: set[int] = set()

    def encode(self, x):
        nonlocal calls
        calls += self.training and torch.is_grad_enabled()
        return real(self, x * float("nan") if calls in bad and torch.is_grad_enabled() else x)

    monkeypatch.setattr(VQVAE, "_encoded", encode)
    arguments = [
        "train-vqvae",
        "folder",
        *TINY,
        "--data.root",
        pictures,
        "--stage1.steps",
        30,
        "--stage1.save_every",
        2,
    ]
    bad.update({3, 4})
    assert command(*arguments, "--out", tmp_path / "a")[0] == 0
    found = newest(tmp_path / "a" / "stage1")
    assert all(value.isfinite().all() for value in found.tensors("model").values())
    assert found.meta["guard"] == {"skipped": 2, "in_a_row": 0}

    calls, bad = 0, set(range(13, 99))
    code, printed = command(*arguments, "--out", tmp_path / "b")
    assert code == 2 and "up to step 22" in printed
    assert all(
        value.isfinite().all() for value in newest(tmp_path / "b" / "stage1").tensors("model").values()
    )


def test_a_step_that_is_not_finite_on_one_of_two_processes_is_left_out_by_both(tmp_path, arguments):
    """In each stage the loss of step 3 and the gradient of step 4; ten more in stage two end the run."""
    nan = {"TEST_NAN_LOSS": "3", "TEST_NAN_GRADIENT": " ".join(map(str, [4, *range(13, 30)]))}
    flags = ["--stage2.steps", 30, "--stage2.keep", 20]
    for name, ranks in (("one", "1"), ("both", "0 1")):
        command = [*arguments[:-1], tmp_path / name, *flags]
        ended = run_processes(command, processes=2, env=nan | {"TEST_NAN_RANKS": ranks})
        last = tmp_path / name / "stage2" / "step-00000020"
        assert (
            "10 steps in a row, up to step 22; none of them was applied, and the last good checkpoint is "
            f"{last}" in ended.stderr
        )
        assert re.findall(r"exitcode +: (-?\d+)", ended.stderr) == ["2", "2"], ended.stderr
        for stage, skipped in (("stage1", [0, 0, 1, 2]), ("stage2", [0, 0, 1, 2, *[2] * 8, *range(3, 12)])):
            events = EventAccumulator(str(tmp_path / name)).Reload().Scalars(f"{stage}_rates/skipped_steps")
            assert [event.value for event in events] == skipped
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.safetensors")]
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "both" / file).read_bytes(), file
    for stage, before, after in (("stage1", 2, 4), ("stage2", 2, 4), ("stage2", 12, 20)):
        sound, kept = (
            tmp_path / "one" / stage / f"step-{n:08d}" / "model.safetensors" for n in (before, after)
        )
        assert sound.read_bytes() == kept.read_bytes()


def test_all_checkpoints_damaged_is_refused_and_one_damaged_is_passed_over(finished_run, tmp_path, command):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    newest = run / "stage1" / "step-00000004" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:100])
    code, printed = command("train-vqvae", run)
    assert code == 0 and "trying the one before" in printed
    assert (
        newest.read_bytes() == (finished_run / "stage1" / "step-00000004" / "model.safetensors").read_bytes()
    )
    for path in run.glob("stage1/*/manifest.json"):
        path.write_text("{")
    code, printed = command("train-vqvae", run)
    assert code == 2 and "every checkpoint" in printed


def test_stage_one_that_was_stopped_stays_where_it_is_once_a_prior_has_learnt_its_codes(
    finished_run, tmp_path, command
):
    """Trained on, its next checkpoints would take the place of the one that the codes are of."""
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    settings = run / "config.yaml"
    stage1, stage2 = settings.read_text().split("stage2:")
    settings.write_text("stage2:".join((stage1.replace("steps: 4", "steps: 9"), stage2)))
    for name in ("train-vqvae", "run"):
        code, printed = command(name, run)
        assert code == 0 and "stays at step 4 of 9, since the prior has learnt" in printed, printed
    assert sorted(path.name for path in (run / "stage1").iterdir()) == ["step-00000002", "step-00000004"]


@pytest.mark.parametrize("stage, name", [("stage1", "train-vqvae"), ("stage2", "train-prior")])
def test_steps_are_not_lowered_to_those_before_the_first_evaluation(
    finished_run, tmp_path, command, stage, name
):
    """None of the checkpoints could be used; one step more is evaluated."""
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    for folder in ["codes", "stage2"] if stage == "stage1" else []:
        shutil.rmtree(run / folder)
    shutil.rmtree(run / stage / "step-00000004")
    before = (run / "config.yaml").read_text()
    code, printed = command(name, run, f"--{stage}.steps", 2)
    assert code == 2 and f"type --{stage}.steps 3 or more" in printed, printed
    assert (run / "config.yaml").read_text() == before
    assert command(name, run, f"--{stage}.steps", 3)[0] == 0
