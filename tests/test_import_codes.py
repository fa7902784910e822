"""Codes of others: read, split, trained, drawn, measured; what needs pictures or cannot be read is
refused."""

import contextlib
import importlib
import importlib.util
import io
import json
import re
import shlex
import shutil
import sys
import zipfile
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import TINY, write_pictures
from vqprior import Generator
from vqprior.configs.commands import ImportCodes
from vqprior.configs.errors import UserError
from vqprior.evaluation.parts import code_copies
from vqprior.runtime.code_maps import CodeMaps
from vqprior.runtime.codes import Level
from vqprior.runtime.grids import read
from vqprior.sampling.decoding import Imported, named_decoder

STEPS = ["--stage2.steps", 4, "--stage2.save_every", 2, "--stage2.eval_every", 4, "--stage2.batch_size", 8]
STEPS += ["--stage2.channels", 8, "--stage2.layers", 4, "--stage2.gated_pixelcnn.head", 8]
STEPS += ["--stage2.learning_rate", 0.1, "--stage2.average", 0.5]


def grids(count: int = 80, size: tuple[int, ...] = (3, 4), K: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, K, (count, *size))


def saved(name: str, write: Callable[..., None] = np.savez, /, *arrays: object, **named: object) -> None:
    """What numpy writes, under a name with any ending."""
    buffer = io.BytesIO()
    write(buffer, *arrays, **named)
    Path(name).write_bytes(buffer.getvalue())


def parquet(codes: object = None, metadata: dict[str, str] | None = None, **columns: object) -> None:
    """f.parquet, of 80 rows of 12 codes where no others are given."""
    pq, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    rows = grids(80, (12,)).tolist() if codes is None else codes
    pq.write_table(pa.table({"codes": rows, **columns}).replace_schema_metadata(metadata), "f.parquet")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_grids_become_a_run_that_is_trained_drawn_and_measured(here, command):
    codes, labels = grids(), np.arange(80) % 3
    np.savez("mine.npz", codes=codes.astype(np.uint8), labels=labels, label_names=["a", "b", "c"])
    code, printed = command("import-codes", "mine.npz", "--K", 5, "--out", "run")
    assert code == 0 and "80 maps of 3x4 codes of 5, 3 classes" in printed, printed
    maps = CodeMaps(here / "run" / "codes")
    found = [maps.split(name) for name in ("train", "validation", "test")]
    assert sum(map(len, found)) == 80 and maps.header.label_names == ["a", "b", "c"]
    for split in found:
        indices = torch.arange(len(split))
        at = np.array([*map(int, split.names(indices))])
        (there,) = split.codes(indices)
        assert np.array_equal(there.numpy(), codes[at]) and np.array_equal(split.labels.numpy(), labels[at])
    assert command("train-prior", "run", *STEPS)[0] == 0
    code, printed = command("train-prior", "run", "--stage2.layers", 5)
    assert code == 2 and "as in vqprior train-prior run," in printed  # `run` would refuse these codes
    code, printed = command("sample", "run", "--images", 6, "--verify", True)
    assert code == 0, printed
    drawn = np.load("run/samples/samples.npz")
    assert drawn["codes"].shape == (6, 3, 4) and drawn["codes"].dtype == np.uint8
    assert drawn["images"].shape == (6, 12, 16, 3)  # a square of colour for each code
    generator = Generator.from_run("run")
    assert np.array_equal(generator.sample_codes(6), drawn["codes"])
    assert (generator.log2_prob(drawn["codes"], "a") < 0).all()
    assert generator.classify(drawn["codes"]).shape == (6,)
    code, printed = command("evaluate", "run")
    assert code == 0, printed
    assert {"stage2", "verification", "code_copies"} <= json.loads(
        Path("run/metrics.json").read_text()
    ).keys()
    code, printed = command("export", "run", "--out", "shared")
    assert code == 0, printed
    assert np.array_equal(Generator.from_run("shared").sample_codes(6), drawn["codes"])
    card = Path("shared/README.md").read_text()
    assert "The codes were imported" in card and "generator.encode" not in card and "Not measured" not in card


def test_test_maps_of_all_classes_are_held_beside_the_drawn_ones(here, command, monkeypatch):
    """They may be sorted by class: here the maps of a class are all of one code."""
    labels = np.arange(80) // 40
    np.savez("mine.npz", codes=np.broadcast_to(labels[:, None, None], (80, 3, 4)), labels=labels)
    assert command("import-codes", "mine.npz", "--K", 5, "--out", "run")[0] == 0
    assert command("train-prior", "run", *STEPS)[0] == 0
    monkeypatch.setattr(code_copies, "MAPS", 4)
    compared: list[torch.Tensor] = []
    real = code_copies.hamming
    monkeypatch.setattr(
        code_copies, "hamming", lambda subject, maps: compared.append(maps) or real(subject, maps)
    )
    code, printed = command("evaluate", "run", "--only", "code_copies")
    assert code == 0, printed
    test = CodeMaps(here / "run" / "codes").split("test")
    assert test.labels[:4].unique().tolist() == [0]  # the first ones would not do
    assert compared[0][4:].unique().tolist() == [0, 1]


def test_a_row_of_codes_is_a_map_of_height_one_and_text_may_hold_the_labels(here, command):
    np.save("rows.npy", grids(60, (9,)))
    Path("labels.txt").write_text("\n".join(str(i % 2) for i in range(60)))
    code, printed = command("import-codes", "rows.npy", "--labels", "labels.txt", "--out", "run")
    assert code == 0 and "the largest code is 4, so there are taken to be 5" in printed, printed
    header = CodeMaps(here / "run" / "codes").header
    assert header.levels[0].size == (1, 9) and header.label_names == ["0", "1"]


def test_the_split_may_be_given(here, command):
    words = np.array(["train"] * 20 + ["validation"] * 5 + ["test"] * 5)
    np.savez("mine.npz", codes=grids(30), split=words)
    assert command("import-codes", "mine.npz", "--K", 5, "--out", "run")[0] == 0
    assert CodeMaps(here / "run" / "codes").header.sizes == {"train": 20, "validation": 5, "test": 5}


def test_text_may_be_bytes_and_numbers_of_classes_of_any_width(here, command):
    """C strings of numpy, and columns of bytes, are the text that they hold."""
    words = np.array([b"train"] * 60 + [b"validation"] * 10 + [b"test"] * 10)
    labels, names = np.arange(80, dtype=np.uint64) % 2, np.array([f"n{i}".encode() for i in range(80)])
    classes = np.array(["c\u00e9".encode(), b"c1"])
    np.savez("f.npz", codes=grids(), labels=labels, label_names=classes, names=names, split=words)
    files = ["f.npz"]
    if importlib.util.find_spec("pyarrow"):
        parquet(
            metadata={"label_names": '["c\u00e9", "c1"]', "K": "5", "height": "3", "width": "4"},
            label=labels,
            name=names.tolist(),
            split=words.tolist(),
        )
        files.append("f.parquet")
    for file in files:
        out = f"from_{file}"
        assert command("import-codes", file, "--K", 5, "--out", out)[0] == 0
        maps = CodeMaps(here / out / "codes")
        assert maps.header.label_names == ["c\u00e9", "c1"] and maps.header.levels[0].size == (3, 4)
        assert maps.header.sizes == {"train": 60, "validation": 10, "test": 10}
        assert maps.split("train").names([0, 59]) == ["n0", "n59"]


def test_null_in_the_metadata_is_nothing_said(here, command):
    parquet(metadata={"label_names": "null", "K": "null", "height": "null"}, label=np.arange(80) % 3)
    code, printed = command("import-codes", "f.parquet", "--out", "run")
    assert code == 0 and "taken to be 5" in printed, printed
    assert CodeMaps(here / "run" / "codes").header.label_names == ["0", "1", "2"]


def test_what_encode_writes_is_read_again(here, command):
    """As npz and as Parquet, with names, from a run of several codes a position."""
    pictures = write_pictures(here / "pictures", 40)
    flags = [*TINY, "--stage1.codes_per_position", 2, "--data.root", pictures, "--out", "run"]
    assert command("run", "folder", *flags)[0] == 0
    assert command("encode", "run", "--pictures", pictures, "--out", "codes")[0] == 0
    expected = np.load("codes/codes.npz")
    has_parquet = importlib.util.find_spec("pyarrow") is not None
    for ending in ("npz", "parquet") if has_parquet else ("npz",):
        out = f"from_{ending}"
        code, printed = command("import-codes", f"codes/codes.{ending}", "--out", out)
        assert code == 0, printed
        maps = CodeMaps(here / out / "codes")
        assert maps.header.levels[0].K == 16 and maps.header.levels[0].codes_per_position == 2
        train = maps.split("train")
        indices = train.codes(torch.arange(len(train)))[0].numpy()
        names = train.names(torch.arange(len(train)))
        order = [list(expected["names"]).index(name) for name in names]
        assert np.array_equal(indices, expected["codes"][order])


def test_a_decoder_of_ones_own_makes_the_pictures(here, command):
    np.save("grids.npy", grids(60))
    Path("my_decoder.py").write_text(
        "import numpy as np\n"
        "def decode(codes):\n"
        "    return np.repeat((codes * 50).astype(np.uint8)[..., None], 3, axis=-1)\n"
        "def wrong(codes):\n"
        "    return codes * 1.0\n"
        "def failing(codes):\n"
        "    return codes['x']\n"
    )
    for name in ("decode", "wrong", "failing", "missing"):
        assert command("import-codes", "grids.npy", "--decoder", f"my_decoder:{name}", "--out", name)[0] == 0
    shutil.copytree("decode", "colours")
    assert command("train-prior", "decode", *STEPS)[0] == 0
    code, printed = command("sample", "decode", "--images", 4)
    assert code == 0 and "decoded by my_decoder:decode, code of your own" in printed, printed
    drawn = np.load("decode/samples/samples.npz")
    assert np.array_equal(drawn["images"][..., 0], drawn["codes"] * 50)
    refused = {"wrong": "float64 [", "failing": "IndexError", "missing": "cannot be imported"}
    for name, words in refused.items():
        code, printed = command("train-prior", name, *STEPS)  # before it is trained
        assert code == 2 and words in printed and not Path(name, "stage2").exists(), printed
        shutil.copytree("decode/stage2", f"{name}/stage2")
        code, printed = command("sample", name, "--images", 4)
        assert code == 2 and words in printed, printed


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def decode(codes: return 3", "cannot be imported (SyntaxError"),
        ("decode = of_elsewhere", "cannot be imported (NameError: name 'of_elsewhere'"),
        ("import sys; sys.exit('usage')", "cannot be imported (SystemExit: usage"),
        ("import sys; decode = lambda codes: sys.exit(1)", "data.decoder failed on codes int64 [1, 3, 4]"),
        (
            "import numpy; decode = lambda codes: numpy.zeros((len(codes), 0, 4, 3), 'uint8')",
            "gave uint8 [1, 0, 4, 3] for 1 maps",
        ),
    ],
)
def test_a_decoder_that_fails_is_refused_however_it_fails(here, monkeypatch, code, words):
    Path("of_mine.py").write_text(code)
    monkeypatch.delitem(sys.modules, "of_mine", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(UserError) as refused:
        Imported([Level(5, 3, 4)], decoder=named_decoder("of_mine:decode")).refuse_unsound()
    assert words in str(refused.value)


def test_a_decoder_whose_pictures_are_of_a_size_that_depends_on_the_codes_is_refused():
    decode = lambda codes: np.zeros((len(codes), 4, 4 + codes.max(), 3), np.uint8)
    shown = Imported([Level(5, 3, 4)], decoder=decode)
    shown.refuse_unsound()  # all codes are 0
    with pytest.raises(UserError, match=r"\[N, 4, 4, 3\] before and \[2, 4, 5, 3\] now; .* one size"):
        shown.images_of((torch.ones(2, 3, 4, dtype=torch.int64),))


def test_a_decoder_may_flip_its_pictures_and_write_to_its_codes():
    def decode(codes: np.ndarray) -> np.ndarray:
        pictures = codes[:, ::-1, :, None].astype(np.uint8)
        codes[:] = 0
        return pictures.view()[:, :, ::-1]

    codes = torch.from_numpy(grids(4))
    pictures = Imported([Level(5, 3, 4)], decoder=decode).images_of((codes,))
    assert torch.equal(pictures[:, 0].long(), codes.flip(1, 2))


@pytest.mark.parametrize(
    ("make", "flags", "words"),
    [
        (lambda: np.save("f.npy", np.random.rand(9, 4)), ["f.npy"], "save them as integers"),
        (lambda: np.save("f.npy", grids(9, ())), ["f.npy"], "codes are integers [N, h, w] or [N, n]"),
        (
            lambda: np.save("f.npy", grids()),
            ["f.npy", "--K", 4],
            "from 0 to 4; with K 4 they are from 0 to 3",
        ),
        (lambda: np.save("f.npy", grids() - 1), ["f.npy"], "from -1 to 3"),
        (lambda: np.save("f.npy", grids(3)), ["f.npy"], "none is in the split"),
        (lambda: np.savez("f.npz", a=grids(), b=grids()), ["f.npz"], "say which: --key NAME"),
        (lambda: np.savez("f.npz", a=grids()), ["f.npz", "--key", "c"], "no array 'c'; it has a"),
        (lambda: np.savez("f.npz", codes=grids(), labels=np.arange(3)), ["f.npz"], "80 maps and 3 labels"),
        (
            lambda: np.savez("f.npz", codes=grids(), labels=np.arange(80) + 10**9),
            ["f.npz", "--K", 5],
            "count the classes anew",
        ),
        (lambda: np.save("f.npy", grids()), ["f.npy", "--labels", "no.txt"], "there is no file no.txt"),
        (lambda: np.save("f.npy", grids()), ["f.npy", "--codes_per_position", 3], "must divide them"),
        (
            lambda: np.savez("f.npz", codes=grids(), codes_per_position=-1),
            ["f.npz"],
            "codes_per_position is -1",
        ),
        (
            lambda: np.savez("f.npz", codes=grids(), codes_per_position=0),
            ["f.npz"],
            "codes_per_position is 0",
        ),
        (lambda: np.save("f.npy", grids()), ["f.npy", "--K", 0], "K is 0; it is from 2 to 65536"),
        (lambda: Path("f.npz").write_bytes(b"PK\x03\x04 no archive"), ["f.npz"], "cannot be read as codes"),
        (lambda: saved("f.npz", np.save, grids()), ["f.npz"], "it is one array"),
        (
            lambda: saved("f.npy", np.savez, grids()),
            ["f.npy"],
            "it is an archive, as numpy.savez writes; call",
        ),
        (lambda: Path("f.npy").write_bytes(b"\x93NUMPY\1\0\x04\0{((\n"), ["f.npy"], "cannot be read as"),
        (lambda: zipfile.ZipFile("f.npz", "w").writestr("codes", "hello"), ["f.npz"], "codes are integers"),
        (lambda: Path("f.txt").write_text("1 2"), ["f.txt"], "is none of .npy, .npz, .parquet"),
        (lambda: Path("f.npy").write_text("1 2 3 0 1"), ["f.npy"], "it begins with b'1 2 3 '"),
        (lambda: Path("f.npz").write_bytes(b""), ["f.npz"], "it is empty"),
        (lambda: np.save("f.npy", grids()), ["f.npy", "--key", "c"], "has no name; leave out --key c"),
        (lambda: None, ["f.npz"], "there is no file f.npz"),
    ],
)
def test_what_cannot_be_read_is_refused_and_leaves_nothing_behind(here, command, make, flags, words):
    make()
    code, printed = command("import-codes", *flags, "--out", "run")
    assert code == 2 and words in printed, printed
    assert not Path("run").exists()


LABELS = np.arange(80) % 3


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"K": np.array([9, 9])}, "K of f.npz is array([9, 9]); it is a whole number"),
        ({"K": 9.7}, "K of f.npz is 9.7; it is a whole number"),
        ({"codes_per_position": True}, "codes_per_position of f.npz is True; it is a whole number"),
        ({"labels": LABELS, "label_names": "cats"}, "label_names of f.npz is 'cats'; it is a list of text"),
        ({"names": "cats"}, "names of f.npz is 'cats'; it is a list of text"),
        ({"split": "train"}, "split of f.npz is 'train'; it is a list of text"),
        ({"labels": LABELS, "label_names": [["a", "b", "c"]] * 3}, "has ['a', 'b', 'c']; all of it is text"),
        ({"labels": LABELS, "label_names": [b"\xff", b"a", b"b"]}, "has b'\\xff'; text in bytes is UTF-8"),
        ({"labels": LABELS, "label_names": np.arange(100_001).astype(str)}, "there are 100,001 label_names"),
        ({"labels": np.full(80, 2**63, np.uint64)}, "from 9223372036854775808 to 9223372036854775808"),
        ({"labels": LABELS * 1.0}, "are float64 [80], beginning with [0.0, 1.0, 2.0]; they are integers [N]"),
    ],
)
def test_what_an_archive_says_of_its_codes_is_checked(here, command, arrays, words):
    np.savez("f.npz", codes=grids(), **arrays)
    code, printed = command("import-codes", "f.npz", "--out", "run")
    assert code == 2 and words in printed, printed
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("metadata", "columns", "words"),
    [
        ({"height": "2", "width": "3"}, {}, "rows have 12 codes and its metadata say 2 x 3"),
        (
            {"height": "4", "width": "3"},
            {"codes": grids().tolist()},
            "rows have 3 x 4 codes and its metadata say",
        ),
        ({"height": "3", "width": "0"}, {}, "say that maps are 3 x 0; both are whole numbers from 1 on"),
        ({"height": "-3", "width": "-4"}, {}, "say that maps are -3 x -4; both"),
        ({"height": "3.0", "width": "4"}, {}, "say that maps are 3.0 x 4; both"),
        ({"height": "3 codes", "width": "4"}, {}, "have height '3 codes', which is no JSON"),
        ({"K": "5.5"}, {}, "K of f.parquet is 5.5; it is a whole number"),
        ({"label_names": "[10, 20, 30]"}, {"label": LABELS}, "label_names of f.parquet has 10; all of it"),
        ({"label_names": '"cats"'}, {"label": LABELS}, "label_names of f.parquet is 'cats'; it is a list"),
        (
            {"label_names": '{"a": 0}'},
            {"label": LABELS},
            "label_names of f.parquet is {'a': 0}; it is a list",
        ),
        ({"label_names": "cats, dogs"}, {"label": LABELS}, "label_names 'cats, dogs', which is no JSON"),
        ({}, {"label": [None, *LABELS[1:]]}, "the column 'label' of f.parquet lacks 1 values"),
        ({}, {"name": [None, *"a" * 79]}, "the column 'name' of f.parquet lacks 1 values"),
        (
            {},
            {"label": np.array([1] * 79 + [2**63], np.uint64)},
            "the labels are from 1 to 9223372036854775808",
        ),
    ],
)
def test_what_a_table_says_of_its_codes_is_checked(here, command, metadata, columns, words):
    parquet(metadata=metadata, **columns)
    code, printed = command("import-codes", "f.parquet", "--out", "run")
    assert code == 2 and words in printed, printed
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"heights": "[1, 3]", "widths": "[2, 4]"}, None),
        ({"heights": "[1, 3]", "widths": "[2, 5]"}, "rows have 12 codes and its metadata say 3 x 5"),
        ({"heights": "[1]", "widths": "[2]"}, "have heights \\[1\\], without one for codes1"),
        ({"heights": "3", "widths": "4"}, "have heights 3, without one for codes1"),
        ({"heights": '["a", "b"]', "widths": "[2, 4]"}, "say that maps are 'b' x 4; both are whole numbers"),
    ],
)
def test_a_level_of_several_has_its_own_size(here, metadata, words):
    parquet(metadata=metadata, codes1=grids(80, (12,)).tolist())
    settings = ImportCodes(out="run", key="codes1")
    if words:
        with pytest.raises(UserError, match=words):
            read(here / "f.parquet", settings)
    else:
        assert read(here / "f.parquet", settings).codes.shape == (80, 3, 4)


@pytest.mark.parametrize("damage", ["empty", "cut", "archive"])
def test_damaged_labels_are_refused(here, command, damage):
    np.save("grids.npy", grids())
    saved("labels.npy", np.savez, LABELS)
    whole = Path("labels.npy").read_bytes()
    Path("labels.npy").write_bytes({"empty": b"", "cut": whole[:100], "archive": whole}[damage])
    code, printed = command("import-codes", "grids.npy", "--labels", "labels.npy", "--out", "run")
    assert code == 2 and "labels.npy, which --labels names, holds no integers: " in printed, printed
    assert not Path("run").exists()


def test_whole_numbers_of_an_array_are_names_by_their_digits(here, command):
    np.savez("f.npz", codes=grids(), labels=LABELS, label_names=[10, 20, 30], names=np.arange(80) + 1000)
    assert command("import-codes", "f.npz", "--out", "run")[0] == 0
    maps = CodeMaps("run/codes")
    assert maps.header.label_names == ["10", "20", "30"]
    assert maps.split("test").names(torch.tensor([0]))[0].isdecimal()


def test_metadata_that_nothing_asks_for_may_be_anything(here, command):
    """As class names without labels, and one side of a map alone."""
    parquet(metadata={"label_names": "cats, dogs", "height": "3"})
    assert command("import-codes", "f.parquet", "--out", "run")[0] == 0


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_class_names_of_the_file_are_those_of_labels_from_another(here, command, ending):
    """As of what `vqprior encode` writes; where the file has labels, the names are of these."""
    names = ["cat", "dog", "fish"]
    for own in (False, True):
        if ending == "parquet":
            parquet(metadata={"label_names": json.dumps(names)}, **({"label": LABELS} if own else {}))
        else:
            np.savez("f.npz", codes=grids(), label_names=names, **({"labels": LABELS} if own else {}))
        np.save("labels.npy", 2 - LABELS)
        run = f"run{own}"
        assert command("import-codes", f"f.{ending}", "--labels", "labels.npy", "--out", run)[0] == 0
        assert CodeMaps(f"{run}/codes").header.label_names == (["0", "1", "2"] if own else names)


def test_damaged_code_maps_are_imported_again_as_it_is_printed(here, command):
    np.save("grids.npy", grids())
    assert command("import-codes", "grids.npy", "--out", "run")[0] == 0
    shutil.copytree("run/codes", "whole")
    for name in ("train-00000.codes.npy", "header.json"):
        Path("run/codes", name).write_bytes(b"{")
        code, printed = command("train-prior", "run", *STEPS)
        assert code == 2 and "delete run/codes and make it again: vqprior import-codes" in printed, printed
        shutil.rmtree("run/codes")
        code, printed = command("train-prior", "run", *STEPS)
        words = re.search(
            r"make them: vqprior (.*), with the other flags of then, and move (.*) there", printed
        )
        assert code == 2 and words, printed
        assert command(*shlex.split(words[1]))[0] == 0
        Path(words[2]).rename("run/codes")
        shutil.rmtree("run-again")
        for file in Path("whole").iterdir():
            assert file.read_bytes() == Path("run/codes", file.name).read_bytes()


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_each_byte_of_a_header_may_be_damaged(here, ending):
    """A UserError, and no other; brackets open what never ends."""
    np.save("f.npy", grids())
    np.savez("f.npz", codes=grids(), K=5)
    file = here / f"f.{ending}"
    whole = file.read_bytes()
    for at, value in product(range(220), (0, 40, 91, 255)):
        file.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
        with contextlib.suppress(UserError):
            read(file, ImportCodes(out="run"))


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_a_file_with_other_bytes_is_read_or_refused(here, ending):
    """Where its beginning or end is damaged: a UserError, and no other."""
    np.save("f.npy", grids())
    np.savez_compressed("f.npz", codes=grids(), names=np.arange(80).astype(str), K=5)
    file, chance = here / f"f.{ending}", np.random.default_rng(0)
    whole = file.read_bytes()
    ends = [*range(min(160, len(whole))), *range(len(whole) - 300, len(whole))]
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for at in chance.choice(ends, 3):
            damaged[at] = chance.integers(256)
        file.write_bytes(damaged)
        try:
            read(file, ImportCodes(out="run"))
        except UserError:
            refused += 1
    assert refused


def test_what_needs_pictures_is_refused_in_words(here, command):
    np.save("grids.npy", grids(60))
    assert command("import-codes", "grids.npy", "--out", "run")[0] == 0
    assert command("train-prior", "run", *STEPS)[0] == 0
    Path("x.png").write_bytes(b"")
    for words in (
        ["encode", "run"],
        ["run", "run"],
        ["train-vqvae", "run"],
        ["report", "run"],
        ["encode", "run", "--pictures", ".", "--out", "codes"],
        ["score", "run", "--pictures", ".", "--out", "found"],
        ["complete", "run", "--image", "x.png", "--hide", "lower half"],
        ["check", "run"],
    ):
        code, printed = command(*words)
        assert code == 2 and "the codes of this run were imported" in printed, (words, printed)
        assert "evaluate, export, app;" in " ".join(printed.split()), printed
    code, printed = command("evaluate", "run", "--only", "ladder")
    assert code == 2 and "needs pictures" in printed, printed
    generator = Generator.from_run("run")
    for call in (generator.encode, generator.reconstruct, generator.score):
        with pytest.raises(Exception, match="no VQ-VAE and no pictures"):
            call(np.zeros((1, 12, 16, 3), np.uint8))


def test_what_has_begun_goes_on_under_its_own_settings(here, command):
    """There is no stage one that could hold them; a run of pictures is another one."""
    np.save("grids.npy", grids(60))
    assert command("import-codes", "grids.npy", "--out", "run")[0] == 0
    code, printed = command("run", "run", "--data.source", "folder")
    assert code == 2 and "data.source is codes there and folder now" in printed, printed
    assert command("train-prior", "run", *STEPS, "--seed", 1, "--stage2.steps", 2)[0] == 0
    code, printed = command("train-prior", "run", "--stage2.steps", 4, "--seed", 2)
    assert code == 2 and "seed is 1 there and 2 now" in printed, printed
    assert command("train-prior", "run", "--stage2.steps", 4)[0] == 0


def test_an_import_that_was_stopped_is_begun_again(here, command, monkeypatch):
    np.save("grids.npy", grids(60))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("vqprior.runtime.code_maps.finish", full)
        code, printed = command("import-codes", "grids.npy", "--out", "run")
    assert code == 2 and "No space left" in printed and [*here.iterdir()] == [here / "grids.npy"], printed
    (here / "run.tmp" / "codes").mkdir(parents=True)  # of one that was killed
    assert command("import-codes", "grids.npy", "--out", "run")[0] == 0
    assert CodeMaps(here / "run" / "codes").header.sizes["train"] and not (here / "run.tmp").exists()
    code, printed = command("import-codes", "grids.npy", "--out", "run")
    assert code == 2 and "is not empty" in printed
    code, printed = command("import-codes", "grids.npy", "--out", "grids.npy")
    assert code == 2 and "grids.npy is a file; give a folder" in printed


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[1, 2], [3, 4]], None),
        ([[[1, 2]], [[3, 4]]], None),
        ([[1, 2], [3]], "its lists are of several lengths"),
        ([[1, None], [3, 4]], "1 values are missing"),
        ([[1, 2], None], "1 values are missing"),
        ([[], []], "codes are integers"),
        ([{"a": 1}, {"a": 2}], "codes are integers"),
        ([], "codes are integers"),
        ([1, 2], "codes are integers"),
    ],
)
def test_a_column_of_lists_is_one_array_or_is_refused(here, rows, words):
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    parquet.write_table(arrow.table({"codes": arrow.array(rows)}), "f.parquet", row_group_size=1)
    if words:
        with pytest.raises(UserError, match=words):
            read(here / "f.parquet", ImportCodes(out="run"))
    else:
        found = read(here / "f.parquet", ImportCodes(out="run")).codes
        assert found.tolist() == [[[1, 2]], [[3, 4]]]


def test_a_prior_goes_on_with_codes_of_its_own_file_alone(here, command):
    for name, count in (("one", 60), ("other", 70)):
        np.save(f"{name}.npy", grids(count))
    for name, out in (("one", "A"), ("one", "B"), ("other", "C")):
        assert command("import-codes", f"{name}.npy", "--out", out)[0] == 0
    assert command("train-prior", "A", *STEPS)[0] == 0
    code, printed = command("train-prior", "B", *STEPS, "--stage2.init", "A")
    assert code == 0 and "begins from the prior" in printed, printed
    code, printed = command("train-prior", "C", *STEPS, "--stage2.init", "A")
    assert code == 2 and "imported from another file" in printed and "stage1" not in printed, printed
