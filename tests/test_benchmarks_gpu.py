"""`python -m benchmarks.gpu` in miniature: the first person with a real GPU has one try."""

import json
import re
import subprocess

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import resident
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import memory, operations
from benchmarks.gpu.device import attempted
from benchmarks.gpu.memory import MIB, Need, Stage
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.steps import config_of
from benchmarks.gpu.training import fitting
from tests.conftest import TINY
from tests.launch import ROOT
from tests.pretend_device import pretend
from vqprior import configs
from vqprior.stage1_vqvae.vqvae import VQVAE


def quick(out, *flags: str) -> dict:
    gpu.main(["--quick", "--presets", "mnist", "--out", str(out), *flags])
    assert out.with_suffix(".md").read_text().startswith("# Measured by")
    return json.loads(out.with_suffix(".json").read_text())


def assert_complete(found: dict) -> None:
    """Every part has figures, and no error in their place but that there is no TF32."""
    assert [(row["stage"], row["batch"]) for row in found["training"]] == [("stage1", 8), ("stage2", 8)]
    for row in [*found["training"], *found["sampling"], *found["encoding"]]:
        assert "error" not in row and row["images_per_second"] > 0, row
    assert found["checks"]["the hash is the CPU's"] and found["checks"]["codes that the cache changes"] == 0
    ieee, tf32 = found["codes"]["rows"]
    assert (ieee["codes"], ieee["maps"], ieee["of"]) == (0, 0, 64)
    assert tf32.get("codes", 0) == 0 and "needs an NVIDIA GPU" in tf32.get("error", "needs an NVIDIA GPU")


def test_all_of_it_runs_on_a_cpu(tmp_path, capsys):
    found = quick(tmp_path / "gpu", "--device", "cpu")
    assert_complete(found)
    assert found["about"]["kind"] == "cpu" and found["about"]["torch"] == torch.__version__


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_all_of_it_runs_on_a_pretend_gpu(tmp_path, capsys):
    with pretend("cuda"):
        found = quick(tmp_path / "gpu")
    assert_complete(found)
    assert found["about"]["memory_mib"] == 80 * 1024


def test_a_batch_that_does_not_fit_is_halved():
    tried = []

    def train(config):
        tried.append(config.stage1.batch_size)
        if tried[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    settings = Settings(quick=True, minutes=1)
    _, batch = fitting(train, config_of("mnist", *settings.flags), "stage1", settings.seconds)
    assert (batch, tried) == (2, [8, 4, 2])


def test_what_fails_is_said_in_place_of_its_figures():
    def fails():
        raise RuntimeError("no kernel\nmore of it")

    assert attempted(fails) == {"error": "RuntimeError: no kernel"}


def test_memory_is_fixed_and_by_image(tmp_path):
    """AdamW keeps three numbers a parameter beside it at most; more images take more in proportion."""
    need = memory.need("mnist", Stage(), "fp32")
    config = config_of("mnist")
    parameters = sum(p.numel() for p in VQVAE(config).parameters())
    assert 3 * 4 * parameters < need.fixed * 2**20 < 5 * 4 * parameters + 2**20
    assert memory.need("mnist", Stage(), "bf16").image < 0.8 * need.image
    peak = memory.peak(config, Stage(), 100, 10, "fp32")
    assert peak == pytest.approx(need.fixed + 100 * need.image, rel=0.1)
    assert Need(fixed=1000, image=100).largest_batch(8) == 51
    assert Need(fixed=1e6, image=1).largest_batch(8) == 0


SMALL = ("mnist_pixelsnail", "mnist_transformer")
LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in memory.CLASSES if name not in SMALL]


@pytest.mark.parametrize("preset", [*SMALL, *LARGE])
def test_memory_of_each_level_and_kind_of_prior_is_counted(preset):
    """A step of two images of every stage of every preset: what it holds is its weights, their gradients and
    two moments at least."""
    config, classes = config_of(preset), memory.CLASSES[preset]
    stages = memory.stages_of(config)
    assert len(stages) == 1 + config.stage1.levels
    for stage in stages:
        with FakeTensorMode():
            model, _ = stage.build(config, 1, classes)
            weights = sum(parameter.numel() for parameter in model.parameters())
        one, two = (memory.peak(config, stage, batch, classes, "bf16") for batch in (1, 2))
        assert one > 4 * 4 * weights / MIB and two > one, stage


@pytest.mark.slow
def test_a_finer_prior_holds_what_reads_the_coarser_codes():
    """Its maps have four times as many places, so an image of it takes more than one of the coarsest."""
    coarse, fine = (memory.need("folder", Stage(level), "bf16").image for level in (0, 1))
    assert fine > 2 * coarse


def test_the_table_of_memory_has_a_row_for_each_level(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "need", lambda *_: Need(fixed=1.0, image=2.0))
    gpu.main(["--memory", "--out", str(tmp_path / "memory")])
    rows = json.loads((tmp_path / "memory.json").read_text())
    assert {row["preset"] for row in rows} == {*memory.CLASSES}
    assert [row["stage"] for row in rows if row["preset"] == "ffhq256"] == ["1", "2", "2, level 1"]


def test_presets_that_are_counted_only_are_not_measured(capsys):
    with pytest.raises(SystemExit) as error:
        gpu.main(["--presets", "ffhq256"])
    assert error.value.code == 2 and "counted by --memory and --work alone" in capsys.readouterr().err


def test_operations_are_those_of_the_table(capsys, tmp_path):
    gpu.main(["--operations", "--presets", "mnist", "--out", str(tmp_path / "operations")])
    rows = json.loads((tmp_path / "operations.json").read_text())
    again = operations.count("mnist", "stage2")
    assert rows[1]["operations"] == again.operations and rows[1]["waits"] == again.waits


def test_a_transformer_is_counted_at_six_operations_a_weight_and_place(tmp_path):
    """Two forward, four backward (arXiv 2001.08361, section 2.1); its attention and embeddings are small."""
    gpu.main(["--work", "--presets", "mnist_transformer", "--out", str(tmp_path / "work")])
    *_, prior = json.loads((tmp_path / "work.json").read_text())
    weights = sum(
        parameter.numel() for parameter in Stage(0).build(config_of(prior["preset"]), 1, 10)[0].parameters()
    )
    assert prior["gflop_an_image"] == pytest.approx(6 * weights * 49 / 1e9, rel=0.1)
    assert prior["assumed_hours"] * 3600 * prior["assumed_steps_per_second"] == pytest.approx(prior["steps"])


def test_every_preset_is_counted_and_has_its_time_and_memory_in_the_table():
    """Each cell says how its figure was come by, or that it is not known."""
    page = (ROOT / "docs" / "tuning.md").read_text().partition("### Time and memory of each preset")[2]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.M)
    assert sorted(name for name, _ in rows) == sorted(memory.CLASSES) == sorted(configs.preset_names())
    for name, cells in rows:
        told = [re.match(r"\*\*[mce]\*\* |not known", cell) for cell in cells.split(" | ")]
        assert len(told) == 4 and all(told), name


@pytest.mark.slow
def test_memory_of_a_whole_command_is_that_of_its_own_process(tmp_path):
    """In GiB: torch and the libraries alone take some hundred MiB."""
    assert 0.2 < resident.peak("mnist5k", tmp_path / "small", *TINY, "--stage2.label_dropout", "0.2") < 3
    with pytest.raises(subprocess.CalledProcessError):
        resident.peak("mnist5k", tmp_path / "wrong", "--stage1.K", "0")
