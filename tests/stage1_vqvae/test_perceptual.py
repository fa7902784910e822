"""The perceptual distance: against torch-fidelity's LPIPS, apart from the model, and refused in words."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vqprior import configs
from vqprior.configs.errors import UserError
from vqprior.runtime.run_dir import RunDir
from vqprior.stage1_vqvae.perceptual import ClassifierStages, Perceptual, VGGStages
from vqprior.stage1_vqvae.perceptual_weights import perceptual_of

LPIPS = ["--stage1.perceptual", "1", "--stage1.features.network", "lpips", "--data.size", "32", "32"]
WIDTHS = (64, 128, 256, 512, 512)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files of weights as torchvision's VGG-16 and as LPIPS have them, drawn by chance."""
    folder, chance = tmp_path_factory.mktemp("weights"), torch.Generator().manual_seed(0)
    vgg = VGGStages().state_dict()
    for name, x in vgg.items():
        deviation = (2 / x[0].numel()) ** 0.5 if x.ndim > 1 else 0.1
        vgg[name] = torch.randn(x.shape, generator=chance) * deviation
    heads = {
        f"lin{index}.model.1.weight": torch.rand(1, width, 1, 1, generator=chance)
        for index, width in enumerate(WIDTHS)
    }
    torch.save(vgg | {"classifier.0.bias": torch.zeros(3)}, folder / "vgg16.pth")
    torch.save(heads, folder / "heads.pth")
    save_file(vgg, folder / "vgg16.safetensors")
    return folder


def lpips(weights, *flags: str) -> Perceptual:
    files = [
        "--stage1.features.weights",
        weights / "vgg16.pth",
        "--stage1.features.heads",
        weights / "heads.pth",
    ]
    config = configs.parse(None, [*LPIPS, *map(str, files), *flags])
    return perceptual_of(config, RunDir(weights), None, torch.device("cpu"))


def test_it_is_lpips_as_torch_fidelity_has_it(weights, monkeypatch):
    theirs = pytest.importorskip("torch_fidelity.sample_similarity_lpips")
    heads = torch.load(weights / "heads.pth", weights_only=True)
    network = nn.Module()
    network.features = VGGStages().features
    network.load_state_dict(torch.load(weights / "vgg16.pth", weights_only=True), strict=False)
    for layer in network.features:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False  # or theirs is of activations that were overwritten
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: heads)
    monkeypatch.setattr(theirs, "torchvision_load_pretrained_vgg16", lambda: network)
    x, y = torch.rand(2, 3, 3, 32, 32)
    expected = theirs.SampleSimilarityLPIPS("lpips")(x * 255, y * 255).flatten()
    assert torch.allclose(lpips(weights)(x, y), expected, rtol=1e-4) and expected.min() > 0.01


def test_the_file_s_kind_makes_no_difference_and_other_weights_have_another_fingerprint(weights):
    first = lpips(weights)
    again = lpips(weights, "--stage1.features.weights", str(weights / "vgg16.safetensors"))
    assert again.fingerprint == first.fingerprint
    other = torch.load(weights / "heads.pth", weights_only=True)
    torch.save({name: x + 1 for name, x in other.items()}, weights / "others.pth")
    changed = lpips(weights, "--stage1.features.heads", str(weights / "others.pth"))
    assert changed.fingerprint != first.fingerprint


def of_classifier() -> Perceptual:
    torch.manual_seed(0)
    return Perceptual(ClassifierStages(3, 2).eval().requires_grad_(False).stages, None, "")


def test_it_is_the_equation_and_moves_the_reconstruction_alone():
    x, y = torch.rand(5, 3, 9, 12), torch.rand(5, 3, 9, 12, requires_grad=True)
    perceptual = of_classifier()
    found = perceptual(x, y)
    network = perceptual.stages.__self__
    with torch.no_grad():
        expected = torch.zeros(5)
        for f, g in zip(network.stages(x), network.stages(y), strict=True):
            unit = lambda a: torch.nan_to_num(a / a.norm(dim=1, keepdim=True))
            expected += (unit(f) - unit(g)).square().sum(1).mean((1, 2))
    assert torch.allclose(found, expected, rtol=1e-3)
    found.sum().backward()
    assert y.grad.abs().sum() > 0 and all(p.grad is None for p in network.parameters())


def test_flat_pictures_have_a_finite_gradient():
    """Features may all be zero at a place, where the slope of a length is infinite."""
    y = torch.zeros(1, 3, 8, 8, requires_grad=True)
    of_classifier()(torch.rand(1, 3, 8, 8), y).sum().backward()
    assert y.grad.isfinite().all()


def test_it_is_in_fp32_under_autocast():
    x, y = torch.rand(2, 2, 3, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = of_classifier()(x, y)
    assert found.dtype == torch.float32 and torch.equal(found, of_classifier()(x, y))


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_what_is_no_file_of_tensors_is_refused_and_never_executed(weights, tmp_path, capsys):
    file = tmp_path / "evil.pth"
    file.write_bytes(pickle.dumps(Evil(), protocol=2))
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    torch.save([1], tmp_path / "list.pth")
    named = lambda path: ["--stage1.features.weights", str(path)]
    for path in (file, tmp_path / "torn.safetensors", tmp_path / "list.pth"):
        with pytest.raises(UserError, match="holds more than tensors, or is damaged"):
            lpips(weights, *named(path))
    with pytest.raises(UserError, match="is not a file"):
        lpips(weights, *named(tmp_path / "missing.pth"))
    with pytest.raises(UserError, match="does not fit"):
        lpips(weights, *named(weights / "heads.pth"))
    with pytest.raises(UserError, match="holds no linear heads"):
        lpips(weights, "--stage1.features.heads", str(weights / "vgg16.pth"))
    with pytest.raises(UserError, match="take pictures of 16 pixels or more"):
        lpips(weights, "--data.size", "8", "8")
    assert "executed" not in capsys.readouterr().out


def test_without_heads_it_says_where_they_are(weights):
    config = configs.parse(None, [*LPIPS, "--stage1.features.weights", str(weights / "vgg16.pth")])
    try:
        import lpips  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match="pip install lpips"):
            perceptual_of(config, RunDir(weights), None, torch.device("cpu"))
