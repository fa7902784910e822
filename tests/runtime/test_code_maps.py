import json
import pickle
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from vqprior.configs import UserError
from vqprior.runtime import code_maps
from vqprior.runtime.code_maps import CodeMaps, Header, Level


def header(K: int = 16, train: int = 10, labels: bool = True) -> Header:
    return Header(
        levels=[Level(K, 2, 3)],
        vqvae="f" * 64,
        weights="model",
        precision="no",
        data={"source": "folder"},
        data_fingerprint="d" * 64,
        label_names=["a", "b"] if labels else [],
        sizes={"train": train, "validation": 2, "test": 1},
    )


def name_of(split: str, index: int) -> str:
    """Names that JSON or a file system might stumble over."""
    return f'{split} {index}/päckchen\n"{"猫" * (index % 3)}".png'


def write(folder, made: Header) -> dict[str, torch.Tensor]:
    codes = {name: torch.randint(made.levels[0].K, (size, 2, 3)) for name, size in made.sizes.items()}
    folder.mkdir()
    for split, start, size in code_maps.shard_starts(made):
        labels = torch.arange(start, start + size) % 2 if made.label_names else None
        part, names = codes[split][start : start + size], [name_of(split, start + i) for i in range(size)]
        code_maps.write_shard(folder, made, split, start, (part,), labels, names)
    code_maps.finish(folder, made)
    return codes


@pytest.mark.parametrize(("K", "dtype"), [(2, "uint8"), (256, "uint8"), (257, "uint16"), (65536, "uint16")])
def test_round_trip_in_the_narrowest_type(tmp_path, monkeypatch, K, dtype):
    monkeypatch.setattr(code_maps, "SHARD", 4)  # several shards, the last one short
    codes = write(tmp_path / "codes", header(K))
    maps = CodeMaps(tmp_path / "codes")
    assert maps.header.origin() == header(K).origin()
    train = maps.split("train")
    assert len(train) == 10 and len(train.shards) == 3
    assert all(isinstance(maps, np.memmap) and maps.dtype == dtype for (maps,) in train.shards)
    indices = torch.tensor([9, 0, 4, 4, 3])
    assert torch.equal(train.codes(indices)[0], codes["train"][indices])
    assert torch.equal(train.labels, torch.arange(10) % 2)


def test_the_names_of_the_pictures_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(code_maps, "SHARD", 4)
    write(tmp_path / "codes", header())
    indices = [9, 0, 4, 4, 3, 8]
    assert CodeMaps(tmp_path / "codes").split("train").names(torch.tensor(indices)) == [
        name_of("train", index) for index in indices
    ]
    for one in (torch.tensor([0]), np.array([0]), [0]):
        assert CodeMaps(tmp_path / "codes").split("test").names(one) == [name_of("test", 0)]
    assert CodeMaps(tmp_path / "codes").split("test").names(torch.tensor([], dtype=torch.int64)) == []


@pytest.mark.parametrize("kind", [lambda labels: labels == 1, lambda labels: (labels == 1).tolist()])
def test_a_mask_is_not_taken_for_indices(tmp_path, kind):
    write(tmp_path / "codes", header())
    train = CodeMaps(tmp_path / "codes").split("train")
    for call in (train.codes, train.names):
        with pytest.raises(UserError, match=r"indices are bool; .* of a mask, numpy\.flatnonzero gives them"):
            call(kind(train.labels))
        with pytest.raises(UserError, match="indices are float32; they are whole numbers"):
            call(torch.ones(2))
        assert len(call([])[0] if call == train.codes else call([])) == 0


@pytest.mark.parametrize("name", ["levels", "vqvae", "fp32_precision"])
def test_a_header_that_does_not_say_all_is_refused(tmp_path, name):
    write(tmp_path / "codes", header())
    file = tmp_path / "codes" / "header.json"
    file.write_text(json.dumps({key: x for key, x in json.loads(file.read_text()).items() if key != name}))
    with pytest.raises(UserError, match=rf"'{name}'.*delete .* and make it again: vqprior encode "):
        CodeMaps(tmp_path / "codes")


@pytest.mark.parametrize("content", ["{", "{}", "[1, 2]", '["only one"]', ""])
def test_damaged_names_are_refused(tmp_path, content):
    write(tmp_path / "codes", header())
    (tmp_path / "codes" / "validation-00000.names.json").write_text(content)
    with pytest.raises(UserError, match=r"names\.json is missing or damaged"):
        CodeMaps(tmp_path / "codes")
    code_maps.finish(tmp_path / "codes", header())
    with pytest.raises(UserError, match=r"validation-00000\.names\.json is damaged"):
        CodeMaps(tmp_path / "codes").split("validation").names(torch.tensor([0]))


def test_without_classes_there_are_no_labels(tmp_path):
    write(tmp_path / "codes", header(labels=False))
    assert CodeMaps(tmp_path / "codes").split("test").labels is None
    assert not list((tmp_path / "codes").glob("*labels*"))


def test_what_is_missing_or_damaged_is_refused(tmp_path):
    with pytest.raises(UserError, match="vqprior encode"):
        CodeMaps(tmp_path / "codes")
    write(tmp_path / "codes", header())
    shard = tmp_path / "codes" / "train-00000.codes.npy"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        CodeMaps(tmp_path / "codes")


@pytest.mark.parametrize("kind", ["codes", "labels"])
@pytest.mark.parametrize(
    "damage", ["gone", "empty", "short", "of another shape", "floats", "an archive", "cut archive", "header"]
)
def test_a_damaged_shard_is_refused_by_whoever_reads_it_unverified(tmp_path, kind, damage):
    """As `score` does, which needs no other file of the run."""
    write(tmp_path / "codes", header())
    shard = tmp_path / "codes" / f"train-00000.{kind}.npy"
    array = np.load(shard)
    shard.unlink()
    if damage == "empty":
        shard.write_bytes(b"")
    elif damage == "header":  # a bracket that never ends
        np.save(shard, array)
        shard.write_bytes(shard.read_bytes()[:20] + b"(" + shard.read_bytes()[21:])
    elif "archive" in damage:
        with shard.open("wb") as file:
            np.savez(file, array)
        shard.write_bytes(shard.read_bytes()[: 40 if damage == "cut archive" else None])
    elif damage != "gone":
        others = {
            "short": array[:-1],
            "of another shape": array[..., None],
            "floats": array.astype(np.float64),
        }
        np.save(shard, others[damage])
    words = rf"{kind}.npy is missing or damaged \(.*\); delete .* and make it again: vqprior encode "
    with pytest.raises(UserError, match=words):
        CodeMaps(tmp_path / "codes", verify=False).split("train")


def test_a_pickle_in_code_maps_is_never_executed(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(executed), "w"))

    executed, shard = tmp_path / "executed", tmp_path / "codes" / "train-00000.codes.npy"
    pickle.loads(pickle.dumps(Payload())).close()  # that it would do harm
    executed.unlink()
    write(tmp_path / "codes", header())
    for content in (pickle.dumps(Payload()), np.array([Payload()], dtype=object)):
        shard.write_bytes(content) if isinstance(content, bytes) else np.save(shard, content)
        code_maps.finish(tmp_path / "codes", header())  # the attacker writes right checksums
        with pytest.raises(UserError, match="damaged"):
            CodeMaps(tmp_path / "codes").split("train")
        assert not executed.exists()


def test_an_unfinished_dump_is_not_read(tmp_path):
    write(tmp_path / "codes", header())
    (tmp_path / "codes" / "header.json").unlink()
    assert code_maps.read_header(tmp_path / "codes") is None


def test_a_newer_or_damaged_header_is_refused(tmp_path):
    write(tmp_path / "codes", header())
    file = tmp_path / "codes" / "header.json"
    file.write_text(file.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(UserError, match="format 99"):
        CodeMaps(tmp_path / "codes")
    file.write_text("{")
    with pytest.raises(UserError, match="damaged"):
        CodeMaps(tmp_path / "codes")


def test_origin_is_all_but_the_files_and_what_older_dumps_do_not_say():
    a = header()
    assert set(asdict(a)) - set(a.origin()) == {"files", "fp32_precision"}
    assert a.origin() == replace(a, fp32_precision="ieee").origin()
    assert a.origin() != replace(a, vqvae="e" * 64).origin()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("levels", [{"K": "16", "height": 2, "width": 3}]),
        ("label_names", 5),
        ("label_names", ["a", None]),
        ("sizes", ["train"]),
        ("sizes", {"train": "10", "validation": 2, "test": 1}),
        ("files", [1]),
        ("data", None),
        ("vqvae", 1),
        ("format", "1"),
    ],
)
def test_a_header_with_values_of_other_kinds_is_refused(tmp_path, name, value):
    write(tmp_path / "codes", header())
    file = tmp_path / "codes" / "header.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    with pytest.raises(UserError, match=r"header\.json is damaged"):
        CodeMaps(tmp_path / "codes", verify=False)
