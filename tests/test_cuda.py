"""What only a real CUDA GPU shows: `VQPRIOR_TESTS=cuda pytest tests/test_cuda.py` where there is one."""

import json
import os
import subprocess
import sys
import time
from itertools import product

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import FSQ, LFQ, SHARPER, SIMVQ, TINY, TINY_MAPS, write_pictures
from tests.launch import ROOT
from vqprior import Generator
from vqprior.runtime import graph
from vqprior.sampling.choice import Choice, Sampling
from vqprior.sampling.networks import Networks

pytestmark = pytest.mark.skipif(
    os.environ.get("VQPRIOR_TESTS") != "cuda" or not torch.cuda.is_available(),
    reason="no CUDA GPU, or VQPRIOR_TESTS is not cuda",
)
FINE = (
    "--stage2_fine.steps 4 --stage2_fine.batch_size 8 --stage2_fine.channels 8 --stage2_fine.layers 2".split()
)
FINE += "--stage2_fine.save_every 2 --stage2_fine.eval_every 4 --stage2_fine.log_every 1".split()
LEVELS = [*TINY_MAPS, "--stage1.levels", "2", *FINE]
TRANSFORMER = ["--stage2.prior", "transformer", "--stage2.channels", "16"]
MODELS = ("mnist", "clothing64")


@pytest.mark.parametrize("graph", ["False", "True"])
@pytest.mark.parametrize(
    "flags",
    {
        "gated_pixelcnn": TINY,
        "pixelsnail": [*TINY, "--stage2.prior", "pixelsnail", "--stage2.layers", "3"],
        "transformer": [*TINY, *TRANSFORMER],
        "levels": LEVELS,
        "bf16": [*TINY, "--precision", "bf16"],
        "tf32": [*TINY, "--precision", "tf32"],
        "simvq": [*TINY, *SIMVQ],
        "fsq": [*TINY, *FSQ],
        "lfq": [*TINY, *LFQ],
        "in parts": [*TINY, *"--stage1.accumulate 2 --stage2.accumulate 2 --stage1.average 0.9".split()],
    }.items(),
    ids=lambda item: item[0],
)
def test_a_run_is_the_cpus(flags, graph, tmp_path, command):
    """Up to rounding, which in so few steps changes no code; recorded or not."""
    name, words = flags
    pictures, found = write_pictures(tmp_path / "pictures"), {}
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        more = ["--cuda_graph", graph] if device == "cuda" else []
        if device == "cpu" and name == "tf32":
            more = ["--precision", "no"]
        made = command(
            "run",
            "folder",
            *words,
            *more,
            "--stage1.steps",
            8,
            "--stage1.eval_every",
            8,
            "--stage2.steps",
            8,
            "--stage2.eval_every",
            8,
            "--data.root",
            pictures,
            "--device",
            device,
            "--out",
            out,
        )
        assert made[0] == 0, made[1]
        found[device] = json.loads((out / "metrics.json").read_text())
    for part, figure in (("stage1", "mse"), ("stage2", "bits_per_code")):
        one, other = (of_device[part][figure] for of_device in found.values())
        assert other == pytest.approx(one, rel=0.05 if name in ("bf16", "tf32") else 2e-3), (part, figure)


def test_fp16_and_both_terms_and_a_compiled_step(tmp_path, command):
    pictures = write_pictures(tmp_path / "pictures")
    for name, words in {
        "fp16": ["--precision", "fp16"],
        "terms": SHARPER,
        "compiled": ["--compile", "True"],
    }.items():
        code, printed = command(
            "run", "folder", *TINY, *words, "--data.root", pictures, "--out", tmp_path / name
        )
        assert code == 0, printed


def test_a_killed_run_ends_like_an_unbroken_one(tmp_path):
    """Bit for bit, with deterministic kernels."""
    pictures = write_pictures(tmp_path / "pictures")
    flags = [*TINY, "--deterministic", "True", "--precision", "bf16", "--data.root", str(pictures)]
    flags += ["--stage1.steps", "400", "--stage1.eval_every", "200", "--stage2.steps", "400"]
    flags += ["--stage2.eval_every", "200", "--stage1.save_every", "20", "--stage2.save_every", "20"]
    start = [sys.executable, "-m", "vqprior", "run", "folder", *flags, "--out"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([*start, tmp_path / "whole"], check=True, env=env)
    for stage, step in (("stage1", 60), ("stage1", 200), ("stage2", 100)):
        with subprocess.Popen([*start, tmp_path / "killed"], env=env) as run:
            reached = tmp_path / "killed" / stage / f"step-{step:08}"
            while not reached.exists() and run.poll() is None:
                time.sleep(0.02)
            assert run.poll() is None
            run.kill()
    subprocess.run([*start, tmp_path / "killed"], check=True, env=env)
    for stage in ("stage1", "stage2"):
        files = sorted((tmp_path / "whole" / stage / "step-00000400").glob("*.safetensors"))
        assert len(files) >= 2
        for file in files:
            whole, killed = (
                load_file(tmp_path / out / file.relative_to(tmp_path / "whole"))
                for out in ("whole", "killed")
            )
            assert all(torch.equal(value, killed[name]) for name, value in whole.items()), file


@pytest.mark.parametrize("model", MODELS)
def test_codes_and_images_are_the_cpus_whichever_way_they_are_drawn(model):
    """The third time the rows are replayed."""
    run, images = ROOT / "models" / model, torch.arange(12)
    here = Networks.from_run(run, "cpu")
    choice, labels = Choice(guidance=1.5, top_p=0.95), here.labels_for(images)
    sampling = Sampling(7, choice, batch_size=12)
    expected = here.codes(images, labels, sampling)
    there = Networks.from_run(run, "cuda")
    for method in ("cached", "cached", "cached", "parallel", "parallel"):
        how = Sampling(7, choice, batch_size=12, method=method)
        found = there.codes(images, labels, how)
        differing = sum(int((a.cpu() != b).sum()) for a, b in zip(found, expected, strict=True))
        assert differing <= 2, (method, differing)  # ties within rounding
        assert there.verify(found, images, labels, how).largest_gap < 1e-3
    decoded = there.decode(tuple(codes.cuda() for codes in expected), sampling)
    assert (
        np.abs(decoded.numpy().astype(int) - here.decode(expected, sampling).numpy().astype(int)).max() <= 1
    )


def test_other_work_between_does_not_disturb_what_is_recorded():
    """It takes and gives back memory of other sizes, which recorded work must not write to."""
    generator = Generator.from_run(ROOT / "models" / "mnist", device="cuda")
    picture, mask = generator.sample(1, seed=5)[0], np.ones((28, 28), bool)
    mask[:12] = False
    draw = lambda: generator.complete(picture, mask, n=5, labels=3, batch_size=8, method="cached").codes
    expected = draw()
    for count, method in product((1, 3, 5, 7), ("parallel", "cached", "plain")):
        generator.sample(count, seed=count, method=method, batch_size=count, verify=True)
        generator.sample(8, seed=count, method="parallel", batch_size=8, verify=True)
        generator.complete(picture, mask, n=count, labels=3, batch_size=count, method=method, verify=True)
        for _ in range(3):
            assert np.array_equal(draw(), expected)


def test_what_cannot_be_recorded_leaves_the_device_as_it_was(capsys):
    """A number that is read back breaks a recording off."""
    device = torch.device("cuda")
    x = torch.ones(3, device=device)
    with pytest.raises(RuntimeError):
        graph.record_in_turn([lambda: x.add_(1), lambda: x.sum().item()], device)
    assert torch.rand(1, device=device).item() < 1 and x.tolist() == [1, 1, 1]
    (replay,) = graph.record_in_turn([lambda: x.add_(1)], device)
    replay()
    assert x.tolist() == [2, 2, 2]


def test_a_generator_draws_the_same_in_several_threads():
    from concurrent.futures import ThreadPoolExecutor

    generator = Generator.from_run(ROOT / "models" / "mnist", device="cuda")
    expected = [generator.sample_codes(8, seed=seed) for seed in range(6)]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            found = pool.map(lambda seed: generator.sample_codes(8, seed=seed), range(6))
            assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
