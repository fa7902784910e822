"""Several processes compute what one computes."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import TINY, write_pictures
from tests.launch import run_processes

STEPS = ["--stage1.steps", 50, "--stage2.steps", 50, "--stage1.save_every", 25, "--stage1.eval_every", 50]
STEPS += ["--stage2.save_every", 25, "--stage2.eval_every", 50, "--stage2.dropout", 0]


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm((a - b).ravel()) / max(np.linalg.norm(b.ravel()), 1e-12))


def losses(run, stage: str, tag: str) -> list[float]:
    events = EventAccumulator(str(run / "tensorboard" / stage)).Reload()
    return [event.value for event in events.Scalars(tag)]


def compare(run, one, tolerance: float) -> None:
    for stage in ("stage1", "stage2"):
        # In fp32 the squares of small gradients, which the optimizer keeps, differ by more than the weights do
        optimizer = ["optimizer"] if tolerance < 1e-6 else []
        for file in ("model", *optimizer, *(["average"] if stage == "stage2" else [])):
            found, expected = (load_file(path / stage / "step-00000050" / f"{file}.safetensors") for path in (run, one))
            assert not any("module." in name for name in found)
            for name, value in expected.items():
                assert relative_difference(found[name], value) < tolerance, (stage, file, name)
    for stage, tag in (("stage1", "loss/total"), ("stage1", "loss/commitment"), ("stage2", "train/bits_per_code")):
        assert np.allclose(losses(run, stage, tag), losses(one, stage, tag), rtol=max(tolerance, 1e-6)), tag


@pytest.mark.parametrize(
    ("precision", "tolerance", "processes", "flags"),
    [
        ("fp64", 1e-8, 2, ["--stage1.codebook", "ema"]),
        ("fp64", 1e-8, 4, ["--stage1.codebook", "ema", "--stage1.restart", 0.9]),  # restarts in nearly every step
        ("fp64", 1e-8, 2, ["--stage1.codebook", "gradient", "--stage1.restart", 0.5, "--stage1.average", 0.9]),
        # enough places in a batch that a near tie, which fp32 may flip, is a drop in the ocean
        (
            "fp32",
            1e-3,
            2,
            ["--data.flip", "True", "--data.margin", 2, "--data.size", 16, 16, "--stage1.factor", 2, "--stage1.K", 8],
        ),
    ],
    ids=["ema-2", "ema-restarts-4", "gradient-2", "fp32-2"],
)
def test_training_on_several_processes_is_training_on_one(tmp_path, precision, tolerance, processes, flags):
    pictures = write_pictures(tmp_path / "pictures", 37)  # neither 37 nor its splits divide by 2
    env = {"TEST_FP64": "1"} if precision == "fp64" else {}
    for count, name in ((1, "one"), (processes, "many")):
        arguments = ["run", "folder", *TINY, *STEPS, *flags, "--data.root", pictures, "--out", tmp_path / name]
        done = run_processes(arguments, processes=count, env=env)
        assert done.returncode == 0, done.stderr[-3000:]
    compare(tmp_path / "many", tmp_path / "one", tolerance)


def test_encoding_and_sampling_are_shared_out_and_the_files_are_those_of_one(finished_run, tmp_path):
    for processes in (2, 3, 4):
        run = tmp_path / f"run{processes}"
        shutil.copytree(finished_run, run)
        shutil.rmtree(run / "codes")
        done = run_processes(["encode", run], processes=processes)
        assert done.returncode == 0, done.stderr[-3000:]
        for file in (finished_run / "codes").iterdir():
            assert (run / "codes" / file.name).read_bytes() == file.read_bytes(), file.name
        done = run_processes(["sample", run, "--out", tmp_path / f"samples{processes}"], processes=processes)
        assert done.returncode == 0, done.stderr[-3000:]
        samples = tmp_path / f"samples{processes}" / "samples.npz"
        assert samples.read_bytes() == (finished_run / "samples" / "samples.npz").read_bytes()


def test_a_checkpoint_of_four_goes_on_with_two_and_one(tmp_path):
    pictures = write_pictures(tmp_path / "pictures", 37)
    base = ["train-vqvae", "folder", *TINY, *STEPS, "--stage1.steps", 50, "--data.root", pictures]
    assert run_processes([*base, "--out", tmp_path / "one"], env={"TEST_FP64": "1"}).returncode == 0
    for processes, steps in ((4, 20), (2, 35), (1, 50)):
        done = run_processes(
            [*base, "--out", tmp_path / "mixed"], processes=processes, env={"TEST_FP64": "1", "TEST_STOP_AT": str(steps)}
        )
        assert (done.returncode == 0) == (steps == 50), done.stderr[-3000:]
        assert (tmp_path / "mixed" / "stage1" / f"step-{steps:08d}").is_dir(), done.stderr[-3000:]
    found, expected = (load_file(tmp_path / n / "stage1" / "step-00000050" / "model.safetensors") for n in ("mixed", "one"))
    for name, value in expected.items():
        assert relative_difference(found[name], value) < 1e-8, name


def test_a_batch_that_does_not_divide_is_refused_by_all(tmp_path):
    pictures = write_pictures(tmp_path / "pictures")
    done = run_processes(["run", "folder", *TINY, "--stage1.batch_size", 9, "--data.root", pictures, "--out", tmp_path / "run"],
                         processes=2)  # fmt: skip
    assert done.returncode != 0 and "take 10" in done.stderr
