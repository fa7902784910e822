"""The model card says what is known of the very weights, what is not stated, and what the figures limit."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.launch import ROOT
from vqprior.configs.commands import Export
from vqprior.evaluation.card import card
from vqprior.runtime.run_dir import RunDir
from vqprior.sampling.export import present
from vqprior.sampling.networks import prior_checkpoints
from vqprior.stage1_vqvae.vqvae import vqvae_of

MODELS = ROOT / "models"
MNIST = MODELS / "mnist"
SHIPPED = {
    "mnist": dict(
        license="apache-2.0",
        data="MNIST handwritten digits (Y. LeCun, C. Cortes, C. J. C. Burges), the 60,000 training pictures",
    ),
    "clothing64": dict(
        license="cc0-1.0",
        data="3,068 photographs of clothes of clothing-dataset-small (Alexey Grigorev, CC0, "
        "https://github.com/alexeygrigorev/clothing-dataset-small), its split train",
    ),
}
"""The weights in models/, and what their cards state."""


def present_shipped(name: str, models: Path = MODELS) -> None:
    """Write the card of weights that ship anew: python -c 'from tests.evaluation.test_card import
    present_shipped as write; write("mnist")'."""
    stated = Export(out=str(models / name), **SHIPPED[name])
    present(RunDir(models / name), lambda out: card(out, out, stated))


def front_matter(text: str) -> dict[str, object]:
    return yaml.safe_load(re.match(r"---\n(.*?)---\n", text, re.S)[1])


@pytest.fixture(scope="module")
def evaluated(finished_run, tmp_path_factory) -> Path:
    """A run with made-up figures of its own weights, and of files of somebody's."""
    run = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(finished_run, run)
    metrics = json.loads((MNIST / "metrics.json").read_text())
    prior, vqvae = prior_checkpoints(RunDir(run))[0], vqvae_of(RunDir(run))
    metrics["protocol"] |= {"prior": prior.fingerprint, "vqvae": vqvae.fingerprint}
    metrics["protocol"]["steps"] = {"stage1": vqvae.step, "stage2": prior.step}
    metrics["archives"] = {"somebody/private.npz": metrics["ladder"]["rows"]["samples"]}
    (run / "metrics.json").write_text(json.dumps(metrics))
    return run


def exported(run: Path, out: Path, command, *flags: object) -> str:
    code, printed = command("export", run, "--out", out, *flags)
    assert code == 0 and "README.md" in printed, printed
    return (out / "README.md").read_text()


def test_it_has_the_figures_and_what_they_limit(evaluated, tmp_path, command):
    text = exported(evaluated, tmp_path / "mine", command)
    assert text.startswith("---\n") and "\n# mine\n" in text
    assert "| PSNR, SSIM | 23.80 dB, 0.938 |" in text and "| samples of the prior | 0.4597 |" in text
    limits = text.partition("## Limitations")[2].partition("## ")[0]
    assert "PSNR of 23.8 dB" in limits and "FD(classifier) to test pictures is 0.46" in limits
    assert "Not measured" not in limits and "16 bits" not in limits
    assert "private" not in text  # names of files here


@pytest.mark.parametrize("of", ["prior", "vqvae"])
def test_figures_of_other_weights_are_not_shown(evaluated, tmp_path, command, of):
    """Of another prior, or of another decoder."""
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["protocol"][of] = "of another"
    (run / "metrics.json").write_text(json.dumps(metrics))
    text = exported(run, tmp_path / "mine", command, "--half", "True")
    assert "23.8" not in text and "None were measured of these weights" in text
    assert "Not measured, and so not known: `reconstruction`" in text and "stored in 16 bits" in text


def test_a_part_that_was_not_measured_is_named(finished_run, tmp_path, command):
    text = exported(finished_run, tmp_path / "mine", command)  # the end of `run` measures two parts
    assert "bits/code" in text and "Not measured, and so not known: `ladder`, `labels`, `copies`" in text


def test_data_and_licence_are_the_users_to_state(finished_run, tmp_path, command):
    text = exported(finished_run, tmp_path / "mine", command)
    assert "| Data | not stated |" in text and "| Licence of the weights | not stated |" in text
    assert "license" not in front_matter(text)
    words = "ants | bees: mine"
    text = exported(finished_run, tmp_path / "yours", command, "--license", "cc-by-4.0", "--data", words)
    assert front_matter(text)["license"] == "cc-by-4.0" and "| Data | ants &#124; bees: mine |" in text


def test_a_hub_reads_the_folder(finished_run, tmp_path, command):
    hub = pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")
    text = exported(finished_run, tmp_path / "mine", command)
    found = hub.ModelCard(text).data
    assert found.library_name == "vqprior" and found.pipeline_tag == "unconditional-image-generation"
    assert "gated-pixelcnn" in found.tags
    summary = json.loads((tmp_path / "mine" / "config.json").read_text())
    assert summary["image_size"] == [8, 8] and summary["label_names"] == ["ant", "bee"]
    assert summary["levels"] == [{"K": 16, "height": 2, "width": 2, "codes_per_position": 1}]
    for name in ("vqvae", "priors"):
        (entry,) = summary[name] if name == "priors" else [summary[name]]
        assert entry["sha256"] in text
    with Image.open(tmp_path / "mine" / "samples.png") as picture:
        assert picture.width > picture.height / 4 * 2 - 8  # two columns of four
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    place = {"mine": str(tmp_path / "mine")}
    names: dict[str, object] = {}
    exec(code.replace('"mine"', repr(place["mine"])), names)
    assert names["images"].shape == (16, 8, 8, 3)


def test_large_maps_have_no_samples(finished_run, tmp_path, command, monkeypatch):
    monkeypatch.setattr("vqprior.sampling.export.SOON", 3)
    text = exported(finished_run, tmp_path / "mine", command)
    assert not (tmp_path / "mine" / "samples.png").exists() and "samples.png" not in text


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_of_the_weights_that_ship_is_what_the_code_writes(tmp_path, name):
    shutil.copytree(MODELS / name, tmp_path / name)
    present_shipped(name, tmp_path)
    for file in ("README.md", "config.json"):
        assert (tmp_path / name / file).read_text() == (MODELS / name / file).read_text(), (
            present_shipped.__doc__
        )
    assert (MODELS / name / "samples.png").stat().st_size < 500_000


def test_all_weights_that_ship_have_a_card():
    assert {file.parent.name for file in MODELS.glob("*/config.json")} == SHIPPED.keys()
