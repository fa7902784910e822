"""Several processes compute what one computes."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import FSQ, LFQ, RESIDUAL, SHARPER, SIMVQ, TINY, write_pictures
from tests.launch import run_processes

pytestmark = pytest.mark.slow

STEPS = ["--stage1.steps", 50, "--stage2.steps", 50, "--stage1.save_every", 25, "--stage1.eval_every", 50]
STEPS += [
    "--stage2.save_every",
    25,
    "--stage2.eval_every",
    50,
    "--stage2.dropout",
    0.3,
    "--stage2.label_dropout",
    0.3,
]
STEPS += ["--inference_batch", 2]  # the splits are of 21, 3 and 13 pictures: no share is like another
PIXELSNAIL = ["--stage2.prior", "pixelsnail", "--stage2.pixelsnail.blocks", 2]
TRANSFORMER = ["--stage2.prior", "transformer", "--stage2.transformer.heads", 2]
CURVES = {
    "": ["stage1/mse", "stage2/bits_per_code", "stage2_loss/bits_per_code"],  # and all terms of the loss
    "validation": ["stage1/mse", "stage2/bits_per_code"],  # and perplexities, whatever they are called
}
SMOOTH = ["mse", "psnr", "ssim", "relative_mse", "bits_per_code", "bits_per_image", "bits_by_position"]
"""Figures that a code which flips in a near tie, as fp32 may, hardly moves."""


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm((a - b).ravel()) / max(np.linalg.norm(b.ravel()), 1e-12))


def curve(run, folder: str, tag: str) -> tuple[list[int], list[float]]:
    events = EventAccumulator(str(run / folder)).Reload().Scalars(tag)
    return [event.step for event in events], [event.value for event in events]


def figures(run) -> dict[str, np.ndarray]:
    """What `evaluate` measured on the test split, both stages."""
    metrics, found = json.loads((run / "metrics.json").read_text()), {}
    for stage in ("stage1", "stage2"):
        levels = metrics[stage].pop("levels", [])
        of_levels = [
            {f"{name} {level}": value for name, value in of.items()} for level, of in enumerate(levels)
        ]
        for named in (metrics[stage], *of_levels):
            found |= {name: np.asarray(value) for name, value in named.items()}
    return found


def compare_figures(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name in (name for name in expected if name.startswith("code_counts")):
        total = expected[name].sum()
        assert np.abs(found[name] - expected[name]).sum() <= (0.01 * total if tolerance > 1e-6 else 0)
    for name, value in expected.items() if tolerance < 1e-6 else [(name, expected[name]) for name in SMOOTH]:
        assert np.allclose(found[name], value, rtol=tolerance, atol=0), name


def compare(run, one, tolerance: float) -> None:
    for stage in ("stage1", "stage2"):
        # In fp32 the squares of small gradients, which the optimizer keeps, differ by more than the weights
        # do
        optimizer = ["optimizer"] if tolerance < 1e-6 else []
        beside = [path.stem for path in (one / stage / "step-00000050").glob("adversary*.safetensors")]
        for file in ("model", *optimizer, *beside, *(["average"] if stage == "stage2" else [])):
            found, expected = (
                load_file(path / stage / "step-00000050" / f"{file}.safetensors") for path in (run, one)
            )
            assert not any("module." in name for name in found)
            for name, value in expected.items():
                assert relative_difference(found[name], value) < tolerance, (stage, file, name)
    for folder, tags in CURVES.items():
        logged = EventAccumulator(str(one / folder)).Reload().Tags()["scalars"]
        more = ("stage1_loss/", "stage1_codes/perplexity", "stage1_adversary/", "stage1/perceptual")
        for tag in {*tags, *(tag for tag in logged if tag.startswith(more))}:
            (steps, values), (expected_steps, expected) = curve(run, folder, tag), curve(one, folder, tag)
            assert steps == expected_steps, tag
            allowed = max(tolerance, 1e-6)  # TensorBoard keeps fp32
            if tag.startswith("stage1_codes/perplexity") and allowed > 1e-6:
                allowed = 0.02  # a code or two in a near tie
            assert relative_difference(np.array(values), np.array(expected)) < allowed, tag
    compare_figures(figures(run), figures(one), tolerance)


@pytest.mark.parametrize(
    ("precision", "tolerance", "processes", "flags"),
    [
        ("fp64", 1e-8, 2, ["--stage1.quantizer", "ema"]),  # and each of the two takes two passes
        # Restarts in nearly every step
        ("fp64", 1e-8, 4, ["--stage1.quantizer", "ema", "--stage1.codebook.restart", 0.9]),
        (
            "fp64",
            1e-8,
            2,
            ["--stage1.quantizer", "gradient", "--stage1.codebook.restart", 0.9, "--stage1.average", 0.9],
        ),
        ("fp64", 1e-8, 2, [*FSQ, "--stage1.average", 0.9, *TRANSFORMER]),
        ("fp64", 1e-8, 2, [*SIMVQ, *PIXELSNAIL]),
        ("fp64", 1e-8, 2, [*RESIDUAL, "--stage1.codebook.restart", 0.9]),
        ("fp64", 1e-8, 2, LFQ),  # whose entropy is of all vectors of a step
        ("fp64", 1e-8, 2, [*RESIDUAL, *LFQ[2:], "--stage1.quantizer", "lfq"]),  # in two passes each, too
        ("fp64", 1e-8, 2, [*SHARPER, "--stage1.quantizer", "ema"]),  # in two passes each, too
        (
            "fp64",
            1e-8,
            2,
            [
                *("--stage1.levels", 2, "--stage1.factor", 2, "--stage2_fine.steps", 50),
                *("--stage2_fine.channels", 8, "--stage2_fine.layers", 2, "--stage2_fine.batch_size", 8),
                *("--stage2_fine.save_every", 25, "--stage2_fine.eval_every", 50),
            ],
        ),
        # enough places in a batch that a near tie, which fp32 may flip, is a drop in the ocean
        (
            "fp32",
            1e-3,
            2,
            [
                "--data.flip",
                "True",
                "--data.margin",
                2,
                "--data.size",
                16,
                16,
                "--stage1.factor",
                2,
                "--stage1.K",
                8,
            ],
        ),
    ],
    ids=[
        *("ema-2", "ema-restarts-4", "gradient-2", "fsq-transformer-2", "simvq-pixelsnail-2"),
        *("residual-2", "lfq-2", "lfq-residual-2", "sharper-2", "levels-2", "fp32-2"),
    ],
)
def test_training_on_several_processes_is_training_on_one(tmp_path, precision, tolerance, processes, flags):
    pictures = write_pictures(tmp_path / "pictures", 37)  # neither 37 nor its splits divide by 2
    env = {"TEST_FP64": "1"} if precision == "fp64" else {}
    passes = ["--stage1.accumulate", 2, "--stage2.accumulate", 2] if flags[-1] in ("ema", "lfq") else []
    for count, name, more in ((1, "one", []), (processes, "many", passes)):
        arguments = [
            "run",
            "folder",
            *TINY,
            *STEPS,
            *flags,
            *more,
            "--data.root",
            pictures,
            "--out",
            tmp_path / name,
        ]
        done = run_processes(arguments, processes=count, env=env | {"TEST_CODEBOOKS": "1"})
        assert done.returncode == 0, done.stderr[-3000:]
        levels = 2 if "--stage1.levels" in flags or RESIDUAL[0] in flags else 1
        assert done.stdout.count(f"{count} equal codebooks") == 50 * levels  # after each step
        assert "FutureWarning" not in done.stderr, done.stderr[-3000:]
    compare(tmp_path / "many", tmp_path / "one", tolerance)


def test_encoding_sampling_and_evaluation_are_shared_out_and_the_files_are_those_of_one(
    finished_run, tmp_path, command
):
    evaluate = [
        "evaluate",
        tmp_path / "run1",
        "--inference_batch",
        2,
        "--only",
        "reconstruction",
        "likelihood",
    ]
    shutil.copytree(finished_run, tmp_path / "run1")
    assert command(*evaluate)[0] == 0
    expected = figures(tmp_path / "run1")
    for processes in (2, 3, 4):
        run = tmp_path / f"run{processes}"
        shutil.copytree(finished_run, run)
        shutil.rmtree(run / "codes")
        samples = tmp_path / f"samples{processes}"
        steps = [
            "encode",
            run,
            "then",
            "sample",
            run,
            "--out",
            samples,
            "then",
            "evaluate",
            run,
            *evaluate[2:],
        ]
        done = run_processes(steps, processes=processes)
        assert done.returncode == 0, done.stderr[-3000:]
        for file in (finished_run / "codes").iterdir():
            assert (run / "codes" / file.name).read_bytes() == file.read_bytes(), file.name
        assert (samples / "samples.npz").read_bytes() == (
            finished_run / "samples" / "samples.npz"
        ).read_bytes()
        compare_figures(figures(run), expected, 1e-9)


def test_a_run_of_four_goes_on_with_two_and_one_and_takes_the_same_steps(tmp_path):
    """Stage one begins on four processes and ends on two, stage two begins on those and ends on one."""
    pictures = write_pictures(tmp_path / "pictures", 37)
    base = ["run", "folder", *TINY, *STEPS, "--data.root", pictures, "--out"]
    assert run_processes([*base, tmp_path / "one"], env={"TEST_FP64": "1"}).returncode == 0
    for processes, stage, step in ((4, 1, 20), (2, 2, 30), (1, 2, 0)):
        stop = {"TEST_STOP_STAGE": str(stage), "TEST_STOP_AT": str(step)}
        done = run_processes([*base, tmp_path / "mixed"], processes=processes, env={"TEST_FP64": "1", **stop})
        assert (done.returncode == 0) == (step == 0), done.stderr[-3000:]
        assert f"stage {stage}: stopped after step {step} as told" in done.stdout or step == 0
    compare(tmp_path / "mixed", tmp_path / "one", 1e-8)


def test_a_batch_that_does_not_divide_is_refused_once(tmp_path):
    pictures = write_pictures(tmp_path / "pictures")
    done = run_processes(
        [
            "run",
            "folder",
            *TINY,
            "--stage1.batch_size",
            9,
            "--data.root",
            pictures,
            "--out",
            tmp_path / "run",
        ],
        processes=2,
    )
    assert done.returncode != 0 and done.stderr.count("take 10") == 1  # once, not by each
