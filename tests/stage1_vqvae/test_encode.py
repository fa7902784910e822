import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vqprior import configs
from vqprior.configs import UserError
from vqprior.runtime import checkpoint, code_maps
from vqprior.runtime.code_maps import CodeMaps
from vqprior.runtime.data import load
from vqprior.runtime.run_dir import RunDir
from vqprior.stage1_vqvae.encode import encode
from vqprior.stage1_vqvae.vqvae import load_vqvae


@pytest.fixture
def trained(finished_run, tmp_path) -> RunDir:
    """A run whose stage one is trained and nothing more."""
    import shutil

    for name in ("stage1", "config.yaml", "run.json"):
        source = finished_run / name
        shutil.copytree(source, tmp_path / "run" / name) if source.is_dir() else shutil.copy(
            source, tmp_path / "run" / name
        )
    return RunDir(tmp_path / "run")


def test_the_codes_are_those_of_the_encoder_for_every_picture_in_order(trained):
    config, data = trained.config().for_inference(), load(trained.config().data)
    encode(config, trained, data)
    maps, model = CodeMaps(trained.codes), load_vqvae(checkpoint.best(trained.stage1), torch.device("cpu"))
    for name in ("train", "validation", "test"):
        split, codes = data.split(name), maps.split(name)
        x = split.images(torch.arange(len(split))).float() / 255
        assert torch.equal(codes.codes(torch.arange(len(split)))[0], model.encode(x)[0].codes)
        assert torch.equal(codes.labels, split.labels)
        assert codes.names(torch.arange(len(split))) == list(split.keys)


def test_the_header_names_the_origin(trained):
    config, data = trained.config().for_inference(), load(trained.config().data)
    encode(config, trained, data)
    header = CodeMaps(trained.codes).header
    assert header.vqvae == checkpoint.best(trained.stage1).fingerprint
    assert header.label_names == ["ant", "bee"] and header.data_fingerprint == data.fingerprint
    assert (header.weights, header.precision, header.levels[0].K) == ("model", "no", 16)
    assert header.data["size"] == [8, 8]


def test_copies_follow_the_pictures_themselves(trained):
    config = trained.config().for_inference()
    config = replace(config, data=replace(config.data, flip=True, copies=2))
    data = load(config.data)
    encode(config, trained, data)
    plain, n = CodeMaps(trained.codes).split("train"), len(data.train)
    assert len(plain) == 3 * n and len(CodeMaps(trained.codes).split("test")) == len(data.test)
    assert torch.equal(plain.labels, data.train.labels.repeat(3))
    assert plain.names(torch.arange(3 * n)) == 3 * list(data.train.keys)
    model = load_vqvae(checkpoint.best(trained.stage1), torch.device("cpu"))
    images = data.train.images(torch.arange(n)).float() / 255
    straight, mirrored = (model.encode(x)[0].codes for x in (images, images.flip(3)))
    assert torch.equal(plain.codes(torch.arange(n))[0], straight)
    flips = 0
    for index in range(n, 3 * n):
        code = plain.codes(torch.tensor([index]))[0][0]
        flips += torch.equal(code, mirrored[index % n]) and not torch.equal(code, straight[index % n])
        assert torch.equal(code, straight[index % n]) or torch.equal(code, mirrored[index % n])
    assert flips > 0


def test_a_killed_dump_goes_on_with_the_shards_it_lacks(trained, monkeypatch):
    config, data = trained.config().for_inference(), load(trained.config().data)
    monkeypatch.setattr(code_maps, "SHARD", 5)
    encode(config, trained, data)
    whole = {path.name: path.read_bytes() for path in trained.codes.iterdir()}
    origin = CodeMaps(trained.codes).header.origin() | {"fp32_precision": "ieee"}
    partial = trained.path / "codes.partial"
    trained.codes.rename(partial)
    (partial / "header.json").unlink()
    (partial / "train-00001.codes.npy").unlink()
    (partial / "train-00002.names.json").unlink()
    (partial / "origin.json").write_text(json.dumps(origin))
    kept = (partial / "train-00000.codes.npy").stat().st_mtime_ns
    encode(config, trained, data)
    assert (trained.codes / "train-00000.codes.npy").stat().st_mtime_ns == kept
    assert {p.name: p.read_bytes() for p in trained.codes.iterdir() if p.name != "origin.json"} == {
        name: content for name, content in whole.items() if name != "origin.json"
    }


def test_shards_of_another_precision_of_fp32_are_encoded_anew(trained):
    """No dump may hold both."""
    config, data = trained.config().for_inference(), load(trained.config().data)
    encode(config, trained, data)
    whole = (trained.codes / "train-00000.codes.npy").read_bytes()
    partial = trained.path / "codes.partial"
    trained.codes.rename(partial)
    origin = CodeMaps(partial).header.origin() | {"fp32_precision": "tf32"}
    (partial / "origin.json").write_text(json.dumps(origin))
    (partial / "header.json").unlink()
    (partial / "train-00000.codes.npy").write_bytes(whole[:-1] + b"\0")
    encode(config, trained, data)
    assert (trained.codes / "train-00000.codes.npy").read_bytes() == whole


@pytest.mark.parametrize("origin", ["{}", "torn {"])
def test_parts_of_another_dump_are_not_kept(trained, origin):
    config, data = trained.config().for_inference(), load(trained.config().data)
    partial = Path(trained.path / "codes.partial")
    partial.mkdir()
    (partial / "origin.json").write_text(origin)
    (partial / "train-00000.codes.npy").write_bytes(b"of another checkpoint")
    encode(config, trained, data)
    assert len(CodeMaps(trained.codes).split("train")) == len(data.train)


def test_other_pictures_are_refused(trained, tmp_path):
    from tests.conftest import write_pictures

    other = configs.parse(
        None, ["--data.root", str(write_pictures(tmp_path / "other", 30)), "--data.size", "8", "8"]
    )
    with pytest.raises(UserError, match="other pictures"):
        encode(trained.config(), trained, load(other.data))
