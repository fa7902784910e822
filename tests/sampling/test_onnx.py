"""The graphs of `export --onnx True` give what torch gives, for every quantizer, likelihood and prior, and
any batch."""

import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.launch import ROOT
from vqprior import Generator, configs
from vqprior.configs import Config
from vqprior.configs.schema import FSQ, Data, GatedPixelCNN, PixelSNAIL, Stage1, Stage2, Stage2Fine
from vqprior.runtime import checkpoint
from vqprior.runtime.files import write_file
from vqprior.runtime.run_dir import RunDir
from vqprior.sampling import onnx_graphs
from vqprior.sampling.arguments import numbered
from vqprior.stage1_vqvae.vqvae import VQVAE
from vqprior.stage2_prior.prior import Prior
from vqprior.stage2_prior.priors import PRIORS, build

ATOL = 1e-4
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed: pip install 'vqprior[onnx]'")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed: pip install 'vqprior[onnx]'")


def session(file: Path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def computed(file: Path, *inputs: Tensor) -> list[np.ndarray]:
    graph = session(file)
    given = {put.name: x.numpy() for put, x in zip(graph.get_inputs(), inputs, strict=True)}
    return graph.run(None, given)


def make_run(folder: Path, stage1: Stage1, stage2: Stage2, classes: int) -> tuple[VQVAE, list[Prior]]:
    """A run directory with random weights of these settings."""
    torch.manual_seed(0)
    several = stage1.levels > 1
    fine = Stage2Fine(**{name: value for name, value in vars(stage2).items()}) if several else Stage2Fine()
    config = Config(data=Data(size=(16, 24)), stage1=stage1, stage2=stage2, stage2_fine=fine)
    vqvae = VQVAE(config)
    names = [f"class {number}" for number in range(classes)]
    priors = [
        build(config.stage2_of(level), vqvae.levels[: level + 1], classes) for level in range(stage1.levels)
    ]
    for network in (vqvae, *priors):
        network.eval().requires_grad_(False)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    run = RunDir(folder)
    meta = {"stage": "stage1", "config": asdict(config), "data_fingerprint": "none"}
    checkpoint.save(run.stage1, 1, {"model": vqvae.state_dict()}, meta, 0.0)
    levels = [asdict(level) for level in vqvae.levels]
    origin = {"vqvae": checkpoint.best(run.stage1).fingerprint, "precision": "no", "data_fingerprint": "none"}
    origin |= {"levels": levels, "label_names": names}
    for level, prior in enumerate(priors):
        meta = {"stage": "stage2", "level": level, "config": asdict(config), "codes": origin}
        checkpoint.save(run.stage2_of(level), 1, {"model": prior.state_dict()}, meta, 0.0)
    write_file(run.config_file, configs.dump(config))
    return vqvae, priors


def assert_graphs_are_the_networks(folder: Path, vqvae: VQVAE, priors: list[Prior]) -> None:
    names = numbered("prior", len(priors))
    for batch in (1, 3):
        x = torch.rand(batch, vqvae.channels, *vqvae.image_size)
        quantized = vqvae.encode(x)
        codes = tuple(of_level.codes for of_level in quantized)
        found = computed(folder / "encoder.onnx", x)
        of_graph, features = found[: len(codes)], found[len(codes) :]
        for ours, theirs in zip(quantized, features, strict=True):
            np.testing.assert_allclose(theirs, ours.z_e, atol=ATOL)
        for ours, theirs, quantizer in zip(quantized, of_graph, vqvae.quantizers, strict=True):
            # Another code only where both are as near
            apart = (quantizer.embed(torch.from_numpy(theirs)) - ours.z_e).norm(dim=1) - (
                quantizer.embed(ours.codes) - ours.z_e
            ).norm(dim=1)
            assert theirs.dtype == np.int64 and apart.max() < ATOL
        (images,) = computed(folder / "decoder.onnx", *codes)
        assert images.min() >= 0 and images.max() <= 1
        np.testing.assert_allclose(images, vqvae.decode_codes(codes).clamp(0, 1), atol=ATOL)
        for level, (name, prior) in enumerate(zip(names, priors, strict=True)):
            labels = (torch.arange(batch) % prior.labels,) if prior.classes else ()
            (logits,) = computed(folder / f"{name}.onnx", *labels, *codes[: level + 1])
            expected = prior(codes[level], labels[0] if labels else None, codes[:level])
            np.testing.assert_allclose(logits, expected, atol=ATOL, rtol=1e-4)


def small(prior: str, **more: object) -> Stage2:
    own = dict(gated_pixelcnn=GatedPixelCNN(head=8), pixelsnail=PixelSNAIL(blocks=2, heads=2))
    return Stage2(prior=prior, channels=16, layers=3, **own, **more)


SMALL = Stage1(K=16, D=4, width=8, blocks=1, block_width=4, factor=4)


def test_the_graphs_are_the_networks(tmp_path):
    vqvae, priors = make_run(tmp_path, SMALL, small("gated_pixelcnn"), classes=3)
    onnx_graphs.write_graphs(RunDir(tmp_path))
    assert_graphs_are_the_networks(tmp_path / "onnx", vqvae, priors)
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"  # as before


@pytest.mark.slow
@pytest.mark.parametrize("prior", PRIORS)
def test_of_every_prior_with_levels_codes_side_by_side_and_no_classes(tmp_path, prior):
    stage1 = replace(SMALL, levels=2, codes_per_position=2, likelihood="categorical", quantizer="gradient")
    vqvae, priors = make_run(tmp_path, stage1, small(prior), classes=0)
    onnx_graphs.write_graphs(RunDir(tmp_path))
    assert_graphs_are_the_networks(tmp_path / "onnx", vqvae, priors)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage1", "prior"),
    [
        (replace(SMALL, D=64, quantizer="fsq", fsq=FSQ((4, 4)), likelihood="logistic"), "pixelsnail"),
        (replace(SMALL, likelihood="l1"), "transformer"),
    ],
)
def test_of_other_quantizers_and_likelihoods_with_classes(tmp_path, stage1, prior):
    vqvae, priors = make_run(tmp_path, stage1, small(prior), classes=3)
    onnx_graphs.write_graphs(RunDir(tmp_path))
    assert_graphs_are_the_networks(tmp_path / "onnx", vqvae, priors)


@pytest.mark.slow
def test_the_loop_of_the_documents_draws_a_picture_from_the_prior(tmp_path, command, monkeypatch):
    """As printed: without torch, from the graphs alone."""
    command("export", ROOT / "models" / "mnist", "--out", tmp_path / "mine", "--onnx", "True")
    text = (ROOT / "docs" / "export.md").read_text()
    (code,) = re.findall(r"```python\n(import numpy.*?)```", text, re.S)
    assert len(code.splitlines()) <= 25 and "torch" not in code
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    (tmp_path / "three.png").rename(tmp_path / "mine" / "three.png")
    generator = Generator.from_run(tmp_path / "mine", "cpu")
    assert names["pictures"].shape == (4, 28, 28, 1) and names["pictures"].dtype == np.uint8
    assert (generator.decode(names["codes"]) == names["pictures"]).mean() > 0.999
    assert (generator.classify(names["pictures"]) == 3).all()


def test_what_torch_cannot_write_is_said_and_nothing_is_left(finished_run, tmp_path, command, monkeypatch):
    def fails(*arguments: object, **options: object) -> None:
        raise torch.onnx.OnnxExporterError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", fails)
    code, printed = command("export", finished_run, "--out", tmp_path / "shared", "--onnx", "True")
    assert code == 2 and "cannot write encoder.onnx of a VQVAE (no such operator)" in printed
    assert not [*tmp_path.iterdir()]


def test_without_the_extra_it_is_refused_at_once(finished_run, tmp_path, command, monkeypatch):
    monkeypatch.setattr(onnx_graphs, "find_spec", lambda package: None)
    code, printed = command("export", finished_run, "--out", tmp_path / "shared", "--onnx", "True")
    assert code == 2 and "pip install 'vqprior[onnx]'" in printed and not (tmp_path / "shared").exists()


def test_a_run_exports_all_its_graphs(finished_run, tmp_path, command):
    code, printed = command("export", finished_run, "--out", tmp_path / "shared", "--onnx", "True")
    assert code == 0, printed
    names = {path.name for path in (tmp_path / "shared" / "onnx").iterdir()}
    assert names == {"encoder.onnx", "decoder.onnx", "prior.onnx"}
    assert "`onnx` has the networks as ONNX graphs" in (tmp_path / "shared" / "README.md").read_text()
