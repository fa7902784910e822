"""Finite scalar quantization, by its numbers and through the public commands."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import TINY, write_pictures
from tests.launch import run_processes
from vqprior import Generator, configs
from vqprior.stage1_vqvae.quantizers import QUANTIZERS, build
from vqprior.stage1_vqvae.quantizers.fsq import FSQ

FLAGS = ["--stage1.quantizer", "fsq", "--stage1.fsq.levels", 4, 4, "--stage1.K", 16]


def maps(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors [N, D] as a map [1, D, 1, N]."""
    return vectors.T[None, :, None]


def test_values_by_hand():
    """Three levels of -1, 0, 1 and four of -1, -1/2, 0, 1/2: far out, and at zero."""
    quantizer = FSQ((3, 4))
    out = quantizer(maps(torch.tensor([[-9.0, -9.0], [9.0, 9.0], [0.0, -0.2], [0.3, -9.0]])))
    assert out.z_q[0, :, 0].T.tolist() == [[-1, -1], [1, 0.5], [0, 0], [0, -1]]
    assert out.codes.flatten().tolist() == [0, 2 + 3 * 3, 1 + 3 * 2, 1]
    assert out.terms == {}


@pytest.mark.parametrize("levels", [(2,), (3, 4), (8, 5, 5), (7, 2, 3)])
def test_every_code_is_reached_and_its_vector_has_it(levels):
    quantizer = FSQ(levels)
    assert (math.prod(levels), len(levels)) == (quantizer.K, quantizer.D)
    everywhere = [torch.linspace(-5, 5, 60)] * len(levels)
    out = quantizer(maps(torch.cartesian_prod(*everywhere).view(-1, len(levels))))
    assert out.codes.unique().numel() == quantizer.K
    assert torch.equal(quantizer.embed(out.codes), out.z_q.detach())
    every = torch.arange(quantizer.K)[None, None]
    vectors = quantizer.embed(every)
    grid = [(torch.arange(size) - size // 2) / (size // 2) for size in levels]
    expected = torch.cartesian_prod(*grid).view(-1, len(levels))
    assert {tuple(v) for v in vectors[0, :, 0].T.tolist()} == {tuple(v) for v in expected.tolist()}


def test_codes_are_the_nearest_of_all_vectors_in_the_bounded_space():
    quantizer = FSQ((5, 4, 3))
    out = quantizer(torch.randn(2, 3, 6, 7))
    vectors = quantizer.embed(torch.arange(quantizer.K)[None, None])[0, :, 0].T  # [K, D]
    scaled = (quantizer.sizes // 2).flatten()
    z = out.z_e.permute(0, 2, 3, 1).reshape(-1, 3) * scaled
    assert torch.equal(torch.cdist(z, vectors * scaled).argmin(1).view(2, 6, 7), out.codes)


def test_the_gradient_is_that_of_the_bounded_numbers():
    quantizer, z = FSQ((5, 4)), torch.randn(2, 2, 3, 3)
    weight = torch.randn_like(z)
    one, other = z.clone().requires_grad_(), z.clone().requires_grad_()
    (quantizer(one).z_q * weight).sum().backward()
    (quantizer(other).z_e * weight).sum().backward()
    assert torch.allclose(one.grad, other.grad) and one.grad.abs().sum() > 0


def test_nothing_of_it_moves_or_is_stored():
    quantizer = FSQ((4, 4))
    assert quantizer.is_started and not quantizer.state_dict() and not [*quantizer.parameters()]
    seen = quantizer.observe(torch.randn(9, 2), torch.zeros(9, dtype=torch.int64), torch.zeros(16, dtype=torch.int64))
    assert seen.numel() == 0 and quantizer.update(seen, torch.tensor(1.0)) == 0


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_forward_changes_no_state_and_embeds_what_it_quantized(kind):
    flags = ["--stage1.quantizer", kind, *(["--stage1.fsq.levels", "4", "4"] if kind == "fsq" else []), "--stage1.K", "16"]
    quantizer = build(configs.parse(None, flags).stage1).train()
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    out = quantizer(torch.randn(2, quantizer.D, 4, 5))
    assert out.codes.shape == (2, 4, 5) and out.codes.max() < quantizer.K == 16
    assert torch.allclose(quantizer.embed(out.codes), out.z_q, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("fsq")
    write_pictures(root / "pictures")
    done = run_processes(["run", "folder", *TINY, *FLAGS, "--data.root", root / "pictures", "--out", root / "run"])
    assert done.returncode == 0, done.stderr[-3000:]
    return root / "run"


def test_five_steps_end_in_samples_that_are_shared_and_completed(run, tmp_path, command):
    assert not any("quantizer" in name for name in load_file(run / "stage1" / "step-00000004" / "model.safetensors"))
    figures = json.loads((run / "metrics.json").read_text())["stage1"]
    assert figures["K"] == 16 and figures["mse"] > 0
    picture = next((run.parent / "pictures" / "ant").iterdir())
    flags = ["--hide", "left half", "--label", "ant", "--out", tmp_path / "done"]
    assert command("complete", run, "--image", picture, *flags)[0] == 0
    assert command("export", run, "--half", "True", "--out", tmp_path / "half")[0] == 0
    assert Generator.from_run(tmp_path / "half").sample(3).shape == (3, 8, 8, 3)


def equal(run, other) -> None:
    for file in sorted(run.glob("stage*/step-00000004/*.safetensors")):
        mine, theirs = load_file(file), load_file(other / file.relative_to(run))
        for name, value in mine.items():
            assert torch.allclose(value, theirs[name], rtol=1e-4, atol=1e-6), (file, name)


@pytest.mark.slow
def test_several_processes_train_like_one(run, tmp_path):
    arguments = ["run", "folder", *TINY, *FLAGS, "--data.root", run.parent / "pictures", "--out", tmp_path / "two"]
    done = run_processes(arguments, processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    equal(run, tmp_path / "two")


@pytest.mark.slow
def test_a_stopped_run_goes_on_bit_for_bit(run, tmp_path):
    arguments = ["run", "folder", *TINY, *FLAGS, "--data.root", run.parent / "pictures", "--out", tmp_path / "run"]
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
        (["--stage1.fsq.levels", "4", "4"], "stage1.fsq.levels takes --stage1.quantizer fsq"),
        (["--stage1.quantizer", "fsq", "--stage1.codebook.restart", "0"], "fsq, which has no codebook"),
        (["--stage1.quantizer", "fsq", "--stage1.fsq.levels", "8", "5"], "8 x 5 = 40: type --stage1.K 40"),
        (["--stage1.quantizer", "fsq", "--stage1.fsq.levels", "1", "5"], "numbers of at least 2"),
    ],
)
def test_settings_that_do_not_fit_are_refused(flags, words, capsys):
    with pytest.raises(SystemExit) as refusal:
        configs.parse(None, flags)
    said = " ".join(capsys.readouterr().err.replace("\u2502", " ").split())
    assert refusal.value.code == 2 and words in said


def test_former_names_are_read():
    old = ["--stage1.codebook", "gradient", "--stage1.decay=0.9", "--stage1.restart", "0", "--stage1.kmeans", "False"]
    stage1 = configs.parse(None, [*old, "--stage1.normalize", "True"]).stage1
    assert stage1.quantizer == "gradient"
    assert stage1.codebook == configs.schema.Codebook(decay=0.9, restart=0, kmeans=False, normalize=True)
