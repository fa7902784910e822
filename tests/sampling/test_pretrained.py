"""A folder, or a name on a hub: what is fetched, what is refused, and what is said without a network."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.launch import ROOT, environment
from vqprior import Generator, Tokenizer, UserError
from vqprior.sampling import pretrained

hub = pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")
errors = pytest.importorskip("huggingface_hub.errors", reason="the extra hub is not installed")
MNIST = ROOT / "models" / "mnist"
COMMIT = "0123456789012345678901234567890123456789"


def cached(folder: Path, revision: str = "main") -> Path:
    """A cache as the hub's client leaves it, with models/mnist as someone/digits; the folder of weights."""
    home = folder / "models--someone--digits"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / revision).write_text(COMMIT)
    snapshot = home / "snapshots" / COMMIT
    for number, file in enumerate(path for path in sorted(MNIST.rglob("*")) if path.is_file()):
        blob, link = home / "blobs" / str(number), snapshot / file.relative_to(MNIST)
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blob)
        link.symlink_to(blob)
    return snapshot


def test_a_folder_is_loaded_as_a_run():
    images = Generator.from_pretrained(MNIST, device="cpu").sample(2)
    assert np.array_equal(images, Generator.from_run(MNIST, "cpu").sample(2))


@pytest.mark.slow
@pytest.mark.parametrize("revision", ["main", "v1"])
def test_a_name_is_loaded_from_the_cache_without_a_network(tmp_path, revision):
    cached(tmp_path / "cache", revision)
    call = f"Generator.from_pretrained('someone/digits', revision={revision!r}, device='cpu').sample(2)"
    code = f"from vqprior import Generator; import numpy; numpy.save('images.npy', {call})"
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(None) | offline, check=True)
    assert np.array_equal(np.load(tmp_path / "images.npy"), Generator.from_run(MNIST, "cpu").sample(2))


@pytest.fixture
def asked(tmp_path, monkeypatch) -> list[dict[str, object]]:
    """What the hub's client is asked for, which finds someone/digits."""
    calls: list[dict[str, object]] = []
    snapshot = cached(tmp_path / "cache")

    def download(name: str, **options: object) -> str:
        calls.append({"name": name, **options})
        return str(snapshot)

    monkeypatch.setattr(hub, "snapshot_download", download)
    return calls


def test_only_what_cannot_be_executed_is_fetched(asked):
    Generator.from_pretrained("someone/digits", revision=COMMIT, device="cpu")
    (call,) = asked
    assert call["name"] == "someone/digits" and call["revision"] == COMMIT
    from huggingface_hub.utils import filter_repo_objects

    there = ["config.yaml", "stage1/step-1/model.safetensors", "stage1/step-1/manifest.json", "run.json"]
    others = ["model.pkl", "pytorch_model.bin", "model.pt", "code.py", "README.md", "samples.png"]
    fetched = filter_repo_objects(there + others, allow_patterns=call["allow_patterns"])
    assert [*fetched] == there


def test_code_of_others_is_not_run(asked, tmp_path):
    config = tmp_path / "cache" / "models--someone--digits" / "snapshots" / COMMIT / "config.yaml"
    tree = yaml.safe_load(config.read_text())
    tree["data"] |= {"source": "codes", "decoder": "os:remove"}
    config.write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match="os:remove, code of its own, which from_pretrained does not run"):
        Generator.from_pretrained("someone/digits")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.HFValidationError("no"), "neither a folder here nor a name on a hub, OWNER/NAME"),
        (errors.LocalEntryNotFoundError("no"), r"the hub does not answer \(LocalEntry.*path of a copy"),
        (errors.OfflineModeIsEnabled("no"), "the hub does not answer"),
    ],
)
def test_what_cannot_be_fetched_is_said(monkeypatch, error, words):
    def fails(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(hub, "snapshot_download", fails)
    with pytest.raises(UserError, match=words):
        Generator.from_pretrained("someone/nothing")


@pytest.mark.parametrize("load", [Generator.from_pretrained, Generator.from_run, Tokenizer.from_run])
def test_settings_of_a_later_version_are_said(tmp_path, capsys, load):
    """And the caller's program goes on."""
    (tmp_path / "config.yaml").write_text("stage1: {K: 16, unheard_of: 3}")
    with pytest.raises(UserError, match=r"config.yaml\) are not of this version of vqprior: upgrade"):
        load(tmp_path)
    assert "unheard_of" in capsys.readouterr().err


def test_missing_clients_other_folders_and_idle_revisions_are_said(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"holds no weights of vqprior: it has no config.yaml"):
        Generator.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="is a folder here, which has no revision 'v1'"):
        pretrained.pretrained_folder(MNIST, "v1")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'vqprior\[hub\]'"):
        Generator.from_pretrained("someone/digits")
