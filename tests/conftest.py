"""What several test files share: made-up pictures, a tiny configuration, the command line in this process."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vqprior import configs
from vqprior.cli import main
from vqprior.configs import Config
from vqprior.runtime import lock

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # onnxruntime asks a machine outside as soon as it is imported
if os.environ.get("VQPRIOR_TESTS") != "cuda":  # the tests are of the CPU; tests/test_cuda.py is of a real GPU
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

TINY_MAPS = """
    --data.size 8 8 --data.channels 3 --data.validation 0.2 --data.test 0.2
    --stage1.steps 4 --stage1.batch_size 8 --stage1.K 16 --stage1.D 4 --stage1.width 8
    --stage1.blocks 1 --stage1.block_width 4 --stage1.save_every 2 --stage1.eval_every 4
    --stage2.steps 4 --stage2.batch_size 8 --stage2.channels 8 --stage2.layers 2
    --stage2.label_dropout 0 --stage2.gated_pixelcnn.head 8 --stage2.save_every 2 --stage2.eval_every 4
    --stage1.log_every 1 --stage2.log_every 1
    --inference_batch 16 --sample.images 6 --sample.batch_size 4 --precision no
""".split()
TINY = [*TINY_MAPS, "--stage1.levels", "1"]
FSQ = ["--stage1.quantizer", "fsq", "--stage1.fsq.levels", "4", "4", "--stage1.K", "16"]
LFQ = ["--stage1.quantizer", "lfq", "--stage1.lfq.temperature", "0.5"]
SIMVQ = ["--stage1.quantizer", "simvq", "--stage1.gradient", "rotation"]
SHARPER = ["--stage1.perceptual", "0.5", "--stage1.features.steps", "3"]
SHARPER += ["--stage1.adversarial", "0.1", "--stage1.adversary.width", "16"]
RESIDUAL = ["--stage1.codes_per_position", "2", "--stage1.residual", "True"]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def nowhere_at_first(tmp_path_factory) -> Iterator[None]:
    """What several tests share is made in an empty folder too, and leaves it empty."""
    folder = tmp_path_factory.mktemp("nowhere")
    with contextlib.chdir(folder):
        yield
    assert not [*folder.iterdir()], "a fixture wrote into the current folder"


@pytest.fixture(autouse=True)
def nowhere(tmp_path_factory, monkeypatch) -> Iterator[None]:
    """Each test stands in an empty folder of its own, and leaves it empty: nothing is read or written
    relative to it."""
    folder = tmp_path_factory.mktemp("nowhere")
    monkeypatch.chdir(folder)
    yield
    assert not [*folder.iterdir()], "a test wrote into the current folder"


def colour(seed: int, height: int = 12, width: int = 10) -> Image.Image:
    """A smooth made-up picture."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def write_pictures(root: Path, count: int = 24, classes: tuple[str, ...] = ("ant", "bee")) -> Path:
    """A folder of pictures, in a sub-folder for each class, or flat without classes."""
    for index in range(count):
        folder = root / classes[index % len(classes)] if classes else root
        folder.mkdir(parents=True, exist_ok=True)
        colour(index).save(folder / f"picture{index}.png")
    return root


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of 24 made-up pictures in two classes."""
    return write_pictures(tmp_path / "pictures")


@pytest.fixture
def tiny(pictures: Path, tmp_path: Path) -> Config:
    """A configuration that runs in a second."""
    return configs.parse(None, [*TINY, "--data.root", str(pictures), "--out", str(tmp_path / "run")])


@pytest.fixture
def command(capsys):
    """Run a command in this process: (exit code, what it printed)."""

    def call(*arguments: object) -> tuple[int, str]:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = error.code
        finally:
            lock.release_all()
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Path:
    """A finished tiny run; tests must not change it."""
    root = tmp_path_factory.mktemp("finished")
    write_pictures(root / "pictures")
    assert (
        main(["run", "folder", *TINY, "--data.root", str(root / "pictures"), "--out", str(root / "run")]) == 0
    )
    lock.release_all()
    return root / "run"
