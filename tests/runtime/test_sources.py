"""What each source makes of folders, tables, Parquet files and idx files as people have them."""

import gzip
import os
import shlex
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import TINY, colour, write_pictures
from tests.forked import environment
from tests.launch import command_line
from vqprior import configs
from vqprior.configs import UserError
from vqprior.configs.schema import Data
from vqprior.runtime.data import open_source
from vqprior.runtime.data.labels import classes_of
from vqprior.runtime.data.source import Source
from vqprior.runtime.data.splits import split_in_path, split_of


def opened(root: Path, **settings: object) -> Source:
    return open_source(replace(Data(root=str(root)), **settings))


def sizes(source: Source) -> tuple[int, int | None, int | None]:
    held_out = (source.validation, source.test)
    return len(source.train), *(None if part is None else len(part) for part in held_out)


def refused(root: Path, *words: str, **settings: object) -> None:
    with pytest.raises(UserError) as caught:
        opened(root, **settings)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ({"Training": 6, "Testing": 4}, (6, None, 4)),
        ({"train": 6, "valid": 4}, (6, 4, None)),
        ({"TRAIN": 6, "Dev": 2, "test": 4}, (6, 2, 4)),
        ({"train": 6, "eval": 2}, (6, 2, None)),
        ({"archive/train": 6, "archive/test": 4}, (6, None, 4)),
        ({"train": 6}, (6, None, None)),
    ],
)
@pytest.mark.parametrize("classes", [(), ("ant", "bee")])
def test_split_words_in_folder_names(tmp_path, folders, expected, classes):
    for name, count in folders.items():
        write_pictures(tmp_path / name, count, classes)
    source = opened(tmp_path)
    assert sizes(source) == expected and source.label_names == classes
    assert source.train.keys[0] == (f"{classes[0]}/picture0.png" if classes else "picture0.png")
    if classes:
        assert source.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert all(name.split("/")[-1] in source.layout for name in folders)


def test_one_sub_folder_is_no_class(tmp_path):
    write_pictures(tmp_path / "photos", 5, ())
    source = opened(tmp_path)
    assert source.label_names == () and len(source.train) == 5 and "not a class" in source.layout


@pytest.mark.parametrize("folders", [("in a box/images",), ("train/box/in", "test/box/in")])
def test_where_classes_lie_deeper_it_is_said_what_to_type(tmp_path, folders):
    for folder in folders:
        write_pictures(tmp_path / folder, 6)
    source = opened(tmp_path)
    assert source.label_names == () and "sub-folders ant, bee: --data." in source.layout
    flags = shlex.split(source.layout.split(": ")[-1])
    data = configs.parse(None, ["--data.source", "folder", "--data.root", str(tmp_path), *flags]).data
    assert open_source(data).label_names == ("ant", "bee")


def test_splits_that_lie_deeper_are_said_and_one_class_is_no_riddle(tmp_path):
    for split in ("train", "test"):
        write_pictures(tmp_path / "splits" / "a" / "b" / split, 6)
    assert f"sub-folders test, train: --data.root {tmp_path}/splits/a/b" in opened(tmp_path / "splits").layout
    assert sizes(opened(tmp_path / "splits" / "a" / "b")) == (6, None, 6)
    write_pictures(tmp_path / "one" / "a" / "b", 6, ())
    write_pictures(tmp_path / "heap" / "a", 6)
    write_pictures(tmp_path / "heap" / "a", 2, ())
    for name in ("one", "heap"):
        assert "--data" not in opened(tmp_path / name).layout


def test_layouts_that_are_refused(tmp_path):
    write_pictures(tmp_path / "class", 6, ("cat", "dog", "test"))
    refused(tmp_path / "class", "cat, dog", "test", "--data.train_root")
    write_pictures(tmp_path / "beside" / "train", 4)
    write_pictures(tmp_path / "beside", 2, ())
    refused(tmp_path / "beside", "train", "picture0.png")
    write_pictures(tmp_path / "twice" / "train", 4)
    write_pictures(tmp_path / "twice" / "val", 4)
    write_pictures(tmp_path / "twice" / "Validation", 4)
    refused(tmp_path / "twice", "two folders", "Validation and val", "--data.train_root")
    write_pictures(tmp_path / "shapes" / "train", 4)
    write_pictures(tmp_path / "shapes" / "test", 4, ())
    refused(tmp_path / "shapes", "flat", "in sub-folders")
    write_pictures(tmp_path / "more" / "train", 4)
    write_pictures(tmp_path / "more" / "test", 4, ("ant", "wasp"))
    refused(tmp_path / "more", "wasp", "--data.labels False")
    write_pictures(tmp_path / "only" / "test", 4)
    refused(tmp_path / "only", "no folder train")


def test_without_labels_mixed_layouts_are_one_heap(tmp_path):
    write_pictures(tmp_path, 4)
    write_pictures(tmp_path, 2, ())
    refused(tmp_path, "two layouts", "--data.labels False")
    assert len(opened(tmp_path, labels=False).train) == 6


def test_a_class_of_train_alone_is_said(tmp_path):
    write_pictures(tmp_path / "train", 6, ("ant", "bee", "cow"))
    write_pictures(tmp_path / "test", 4)
    source = opened(tmp_path)
    assert source.label_names == ("ant", "bee", "cow") and "no pictures in test of cow" in source.layout


def test_explicit_roots_beat_names(tmp_path):
    write_pictures(tmp_path / "a", 6, ("cat", "test"))
    write_pictures(tmp_path / "b", 4, ("cat", "test"))
    roots = {"train_root": str(tmp_path / "a"), "validation_root": str(tmp_path / "b")}
    source = opened(tmp_path / "nowhere", **roots)
    assert sizes(source) == (6, 4, None) and source.label_names == ("cat", "test")
    refused(tmp_path, "data.train_root", test_root=str(tmp_path / "b"))
    refused(tmp_path, "two splits", train_root=str(tmp_path), test_root=str(tmp_path / "b"))
    refused(tmp_path, "not a folder", train_root=str(tmp_path / "c"))
    refused(tmp_path, "splits of its own", source="mnist5k", train_root=str(tmp_path / "a"))


def test_each_real_folder_is_visited_once(tmp_path):
    root = write_pictures(tmp_path / "pictures", 40)
    (root / "ant" / "up").symlink_to(root)
    (root / "aaa").symlink_to(root / "bee")
    (root / "above").symlink_to(tmp_path)
    source = opened(root)
    assert len(source.train) == 40 and source.label_names == ("ant", "bee")
    assert source.left_out == {"links to folders that are listed already": 3}
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("ant", "bee"):
        (linked / name).symlink_to(root / name)
    assert len(opened(linked).train) == 40 and opened(linked).label_names == ("ant", "bee")


def test_what_is_no_data_is_left_out_and_counted(tmp_path):
    write_pictures(tmp_path, 4)
    ours = ("begun", "cache", "completions", "marked", "run", "samples", "scores")
    contents = {
        "run.json": '{"format": 1, "starts": []}',
        "samples.json": '{"prior": "", "seed": 0, "top_p": 1}',
        "completions.json": '{"prior": "", "codes_drawn": 3}',
        "scores.json": '{"quantile": 0.99, "restorations": 4}',
    }
    for folder, files in {
        "run": ("config.yaml", "run.json", "figure.png"),
        "samples": ("samples.json", "0.png"),
        "begun": (".unfinished", "0.png"),
        "completions": ("completions.json", "0.png"),
        "scores": ("scores.json", "0.png"),
        "cache": ("CACHEDIR.TAG", "0.png"),
        "marked": (".vqprior", "0.png"),
        ".thumbs": ("0.png",),
    }.items():
        (tmp_path / folder).mkdir()
        for name in files:
            (tmp_path / folder / name).write_text(contents.get(name, ""))
    for name in ("a.txt", "b.TXT", "README", ".hidden.png"):
        (tmp_path / "ant" / name).touch()
    os.mkfifo(tmp_path / "ant" / "pipe.png")
    source = opened(tmp_path)
    assert len(source.train) == 4 and source.label_names == ("ant", "bee")
    assert source.left_out == {
        **{f"folder that vqprior wrote ({name})": 1 for name in ours},
        "hidden": 2,
        "ending .txt": 2,
        "without an ending": 1,
        "no regular files": 1,
    }


def test_folders_without_pictures_are_named(tmp_path):
    write_pictures(tmp_path, 6)
    (tmp_path / "cow" / "raw").mkdir(parents=True)
    (tmp_path / "cow" / "raw" / "1.cr2").write_bytes(b"x")
    (tmp_path / "ant" / "deep").mkdir()
    assert opened(tmp_path).left_out == {"ending .cr2": 1, "folders without pictures (ant/deep, cow)": 2}


@pytest.mark.parametrize(
    ("ending", "words"), [("parquet", "--data.source parquet"), ("zip", "unpack"), ("txt", "in sub-folders")]
)
def test_where_there_are_no_pictures_it_is_said_what_may_be_meant(tmp_path, ending, words):
    (tmp_path / f"pictures.{ending}").write_bytes(b"x")
    refused(tmp_path, f"1 ending .{ending}", words)


@pytest.mark.parametrize("ending", ["png", "txt"])
def test_a_link_to_itself_is_no_folder(tmp_path, ending):
    write_pictures(tmp_path, 4, ())
    os.symlink(f"loop.{ending}", tmp_path / f"loop.{ending}")
    source = opened(tmp_path)
    assert (len(source.train), source.left_out) == ((5, {}) if ending == "png" else (4, {"ending .txt": 1}))


def test_the_root_itself_may_be_a_folder_of_samples(tmp_path):
    write_pictures(tmp_path, 4, ())
    (tmp_path / "samples.json").touch()
    assert len(opened(tmp_path).train) == 4


def test_file_names_that_are_no_utf8(tmp_path):
    colour(0).save(tmp_path / "good.png")
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    os.link(tmp_path / "good.png", name)
    source = opened(tmp_path)
    assert source.train.keys == ["caf\\xe9.png", "good.png"]
    assert source.train.reader.where(0).encode().endswith(b"caf\\xe9.png")
    assert source.train.reader.content(0) == (tmp_path / "good.png").read_bytes()


def test_a_folder_whose_own_name_is_no_utf8_can_be_learnt_from(tmp_path):
    """Its settings, the command and the first line go into files of text."""
    root = write_pictures(tmp_path / os.fsdecode(b"caf\xe9"))
    words = ["train-vqvae", "folder", *TINY, "--data.root", root, "--out", tmp_path / "run"]
    ended = subprocess.run(command_line(words), env=environment(None), capture_output=True)
    assert ended.returncode == 0, ended.stderr


def test_endings(tmp_path):
    for ending in ("jfif", "jpe", "avif", "npy", "HEIC"):
        (tmp_path / f"a.{ending}").write_bytes(b"x")
    source = opened(tmp_path)
    try:
        import pillow_heif  # noqa: F401
    except ImportError:
        assert len(source.train) == 4 and source.left_out == {"ending .heic (pip install pillow-heif)": 1}
    else:
        assert len(source.train) == 5


def csv_table(root: Path, text: str) -> str:
    (root / "table.csv").write_text(text)
    return str(root / "table.csv")


def test_a_table_gives_files_labels_and_splits(tmp_path):
    write_pictures(tmp_path, 6, ())
    rows = [
        ("0", "10", "Training"),
        ("1", "9", "train"),
        ("2", "9", "train"),
        ("3", "9", "dev"),
        ("4", "10", "test"),
    ]
    text = "filename;label;Split\n" + "".join(f"picture{a}.png;{b};{c}\n" for a, b, c in rows)
    source = opened(tmp_path, table=csv_table(tmp_path, text))
    assert sizes(source) == (3, 1, 1) and source.label_names == ("9", "10")
    assert source.train.labels.tolist() == [1, 0, 0] and source.test.labels.tolist() == [1]
    assert source.train.keys == ["picture0.png", "picture1.png", "picture2.png"]
    named = opened(
        tmp_path,
        table=csv_table(tmp_path, 'who,what\n"picture0.png","a, b"\npicture1.png,c\n'),
        **{
            "image_column": "who",
            "label_column": "what",
        },
    )
    assert named.label_names == ("a, b", "c")
    spaced = (
        'file, label, split\npicture0.png, "a, b", train\npicture1.png, c, train\npicture2.png, c, test\n'
    )
    with_spaces = opened(tmp_path, table=csv_table(tmp_path, spaced))
    assert with_spaces.label_names == ("a, b", "c") and sizes(with_spaces) == (2, None, 1)
    bare = opened(tmp_path, table=csv_table(tmp_path, "file\npicture0.png\n"))
    assert sizes(bare) == (1, None, None) and bare.label_names == ()


@pytest.mark.parametrize("head", ["sep=;\r\n", '\ufeff"sep=;"\n', "\n", " \r\n;\r\n", "\ufeff"])
def test_what_programs_write_around_a_table_is_no_part_of_it(tmp_path, head):
    write_pictures(tmp_path, 3, ())
    rows = "file;label\npicture0.png;a\npicture1.png;b, c\n;\npicture2.png;a\n;\n\n"
    source = opened(tmp_path, table=csv_table(tmp_path, head + rows))
    assert source.label_names == ("a", "b, c") and source.train.labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_name_with_a_zero_byte_is_no_file(tmp_path, on_error):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    write_pictures(tmp_path, 2, ())
    pq.write_table(pa.table({"file": ["picture0.png", "picture\0.png"]}), tmp_path / "table.parquet")
    table = str(tmp_path / "table.parquet")
    refused(tmp_path, "names no file in 1 rows, the first at picture 2", table=table, on_error=on_error)


def test_a_parquet_table(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    write_pictures(tmp_path, 3, ())
    rows = {
        "path": [f"picture{i}.png" for i in range(3)],
        "label": ["x", "y", "x"],
        "split": ["train", "train", "val"],
    }
    pq.write_table(pa.table(rows), tmp_path / "table.parquet")
    source = opened(tmp_path, table=str(tmp_path / "table.parquet"))
    assert sizes(source) == (2, 1, None) and source.label_names == ("x", "y")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,label\npicture0.png,a\ngone.png,b\n", ("1 of the 2 files", "gone.png", "--data.root")),
        ("file\npicture0.png\n./picture0.png\n", ("more than once", "picture0.png")),
        ("file,split\npicture0.png,train\npicture1.png,holdout\n", ("'holdout' in 1 rows", "training")),
        ("file,label\npicture0.png,a\npicture1.png,\n", ("no label", "1 of 2 rows")),
        ("name,label\npicture0.png,a\n", ("name, label", "--data.image_column")),
        ("file,split\npicture0.png,test\n", ("no train",)),
        ("file,label\npicture0.png,a,b\n", ("line 2", "quotes")),
        ("", ("no rows",)),
        ("file\na\\picture0.png\n", ("There is a/picture0.png", "with / between folders")),
        ("file\npicture0\n", ("There is picture0.png",)),
        ("sep=;\n\nfile;label\npicture0.png;a;b\n", ("line 4", "quotes")),
        ("file,label\npicture0.png,a\npict\0ure1.png,b\n", ("zero bytes", "UTF-8")),
    ],
)
def test_tables_that_are_refused(tmp_path, text, words):
    write_pictures(tmp_path, 2, ())
    write_pictures(tmp_path, 1, ("a",))
    refused(tmp_path, *words, table=csv_table(tmp_path, text))


def test_a_column_that_is_not_there_is_refused(tmp_path):
    write_pictures(tmp_path, 2, ())
    table = csv_table(tmp_path, "file,label\npicture0.png,a\n")
    refused(tmp_path, "file, label", "--data.label_column", table=table, label_column="kind")


def test_split_words():
    assert [split_of(word) for word in ("TRAINING", "Valid", "testing", "trainset")] == [
        *("train", "validation", "test"),
        None,
    ]
    paths = (
        "train-00000.parquet",
        "my_train_part1.parquet",
        "data/test/0.parquet",
        "validation/a.parquet",
        "x/0.parquet",
    )
    assert [split_in_path(path) for path in paths] == ["train", "train", "test", "validation", None]
    with pytest.raises(UserError, match="test and train"):
        split_in_path("train_test.parquet")


def classes(train: list, given: list[str] | None = None, **held_out: list) -> tuple:
    found = classes_of({"train": train} | held_out, "the column 'label'", given and {"train": given})
    return {split: numbers.tolist() for split, numbers in found.labels.items()}, found.names, found.note


@pytest.mark.parametrize(
    ("values", "labels", "names"),
    [
        ([1, 10, 2, 1], [0, 2, 1, 0], ("1", "2", "10")),
        ([5.0, 3.0, 5.0], [1, 0, 1], ("3", "5")),
        ([True, False], [1, 0], ("False", "True")),
        (["b", "a", "b"], [1, 0, 1], ("a", "b")),
        ([*np.array([0, 1], dtype=np.uint8)], [0, 1], ("0", "1")),
        ([-1, 1], [0, 1], ("-1", "1")),
        ([7, 7], [0, 0], ()),
    ],
)
def test_values_become_classes(values, labels, names):
    found, label_names, _ = classes(values)
    assert found == {"train": labels} and label_names == names


def test_notes_on_labels():
    assert "numbers from 1 to 3: 3 classes" in classes([1, 2, 3])[2]
    assert "numbers from 1 to 9, with gaps" in classes([1, 9, 3])[2]
    assert "one value" in classes(["a", "a"])[2]
    found, names, note = classes([0, 2, 0], ["cat", "cow", "dog"], test=[2])
    assert found == {"train": [0, 1, 0], "test": [1]} and names == ("cat", "dog") and "dropped: cow" in note
    found, _, note = classes([0, 1], test=[-1, -1])
    assert found == {"train": [0, 1]} and "test are hidden" in note
    found, _, note = classes([0, 1], ["a", "b"], test=[-1, -1], validation=[1])
    assert found == {"train": [0, 1], "validation": [1]}


@pytest.mark.parametrize(
    ("train", "held_out", "words"),
    [
        ([1, None, 2], [], "no label in 1 of 3 rows of train"),
        ([1.0, float("nan")], [], "no label in 1 of 2 rows"),
        ([[0, 1], [1, 0]], [], "list"),
        ([*np.eye(2)], [], "list"),
        ([0.5, 0.25], [], "fractions"),
        ([f"a photo of {i}" for i in range(40)], [], "captions"),
        ([*range(100)], [], "captions"),
        ([0, 1], [2], "test that train lacks: 2"),
        ([0, 1], [0, -1], "test that train lacks: -1"),
    ],
)
def test_values_that_are_no_classes(train, held_out, words):
    with pytest.raises(UserError, match=words) as caught:
        classes(train, **({"test": held_out} if held_out else {}))
    assert "--data.labels False" in str(caught.value)


def png(index: int) -> bytes:
    import io

    buffer = io.BytesIO()
    colour(index).save(buffer, "png")
    return buffer.getvalue()


def write_parquet(path: Path, count: int, *, struct_column: bool = False, **columns: list) -> Path:
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("datasets")
    import pyarrow.parquet as pq

    cells = [png(index) for index in range(count)]
    images = [{"bytes": cell, "path": None} for cell in cells] if struct_column else cells
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": images} | columns), path)
    return path


@pytest.fixture
def hf_cache(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


@pytest.mark.parametrize("struct_column", [False, True])
def test_parquet_splits_columns_and_rows(tmp_path, hf_cache, struct_column):
    root = tmp_path / "files"
    for name, count in {
        "data/my_train_part1.parquet": 3,
        "data/my_train_part2.parquet": 2,
        "data/test/0.parquet": 2,
        "validation/0.parquet": 1,
    }.items():
        labels = [index % 2 + 1 for index in range(count)]
        write_parquet(root / name, count, struct_column=struct_column, label=labels)
    source = opened(root, source="parquet")
    assert sizes(source) == (5, 1, 2) and source.label_names == ("1", "2")
    assert source.train.labels.tolist() == [0, 1, 0, 0, 1]
    assert source.train.reader.content(3) == png(0) and source.train.reader.content(2) == png(2)
    assert source.train.reader.where(4) == f"row 1 of {root / 'data/my_train_part2.parquet'}"
    assert source.train.reader.where(2) == f"row 2 of {root / 'data/my_train_part1.parquet'}"
    found = (root / "data/my_train_part2.parquet").stat()
    assert source.train.reader.stamp(4) == (found.st_size, found.st_mtime_ns)


def test_parquet_with_explicit_files_and_columns(tmp_path, hf_cache):
    write_parquet(tmp_path / "a.parquet", 4, kind=["x", "y", "x", "y"], other=[1, 2, 3, 4])
    write_parquet(tmp_path / "b.parquet", 2, kind=["x", "y"], other=[1, 2])
    roots = {"train_root": str(tmp_path / "a*.parquet"), "test_root": str(tmp_path / "b.parquet")}
    source = opened(Path("nowhere"), source="parquet", label_column="kind", **roots)
    assert sizes(source) == (4, None, 2) and source.label_names == ("x", "y")
    refused(tmp_path, "image, kind, other", source="parquet", image_column="photo", **roots)
    same = {"train_root": str(tmp_path), "test_root": str(tmp_path / "b.parquet")}
    refused(tmp_path, "share files", "b.parquet", source="parquet", **same)


def write_named(path: Path, names: list[str], labels: list[int]) -> None:
    """Pictures with classes whose numbers have names, as Hugging Face writes them."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
    cells = [{"bytes": png(index), "path": None} for index in range(len(labels))]
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict({"image": cells, "label": labels}, features).to_parquet(str(path))


def test_each_split_of_parquet_may_number_its_classes_in_its_own_way(tmp_path, hf_cache):
    root = tmp_path / "files"
    write_named(root / "train.parquet", ["ant", "bee", "cow"], [0, 1, 2])
    write_named(root / "validation.parquet", ["cow", "bee", "ant"], [0, 1, 2])
    write_named(root / "test.parquet", ["ant", "cow"], [0, 1])
    source = opened(root, source="parquet")
    assert source.label_names == ("ant", "bee", "cow") and source.train.labels.tolist() == [0, 1, 2]
    assert source.validation.labels.tolist() == [2, 1, 0] and source.test.labels.tolist() == [0, 2]
    write_parquet(root / "train.parquet", 3, label=["cow", "ant", "bee"])  # words, and numbers with names
    source = opened(root, source="parquet")
    assert source.train.labels.tolist() == [2, 0, 1] and source.test.labels.tolist() == [0, 2]
    write_named(root / "test.parquet", ["dog", "cow"], [0, 1])
    refused(root, "test that train lacks: dog", source="parquet")


def test_names_of_a_held_out_split_are_those_of_plain_numbers_in_train(tmp_path, hf_cache):
    write_parquet(tmp_path / "train.parquet", 3, label=[1, 0, 2])
    write_named(tmp_path / "test.parquet", ["cow", "bee", "ant"], [2, 0])
    source = opened(tmp_path, source="parquet")
    assert source.label_names == ("cow", "bee", "ant")
    assert "the plain numbers of train are taken to mean what they do in test" in source.layout
    assert source.train.labels.tolist() == [1, 0, 2] and source.test.labels.tolist() == [2, 0]
    write_parquet(tmp_path / "train.parquet", 3, label=["ant", "dog", "cow"])  # words of more classes
    source = opened(tmp_path, source="parquet")
    assert source.label_names == ("ant", "cow", "dog") and source.test.labels.tolist() == [0, 1]


def test_files_of_one_split_that_number_classes_otherwise_are_refused(tmp_path, hf_cache):
    write_named(tmp_path / "train-0.parquet", ["ant", "bee"], [0, 1])
    write_named(tmp_path / "train-1.parquet", ["bee", "ant"], [0, 1])
    refused(tmp_path, "ant, bee in", "bee, ant in", "train-1.parquet", "in one order", source="parquet")
    assert opened(tmp_path, source="parquet", labels=False).train.labels is None


def test_parquet_below_a_folder_with_brackets_and_stars_in_its_name(tmp_path, hf_cache):
    root = tmp_path / "a[1] x*"
    write_parquet(root / "train.parquet", 3)
    assert sizes(opened(root, source="parquet")) == (3, None, None)


def test_parquet_files_of_several_folders_are_said_and_empty_ones_hide_none(tmp_path, hf_cache):
    for name in ("full", "small"):
        (tmp_path / name).mkdir()
        write_parquet(tmp_path / name / "train-00000-of-00001.parquet", 4)
    write_parquet(tmp_path / "full" / "train-00001-of-00001.parquet", 0)
    source = opened(tmp_path, source="parquet")
    assert len(source.train) == 8
    assert f"train in 3 files, all of the folders {tmp_path}/full, {tmp_path}/small" in source.layout
    assert source.train.reader.where(4) == f"row 0 of {tmp_path}/small/train-00000-of-00001.parquet"
    write_parquet(tmp_path / "full" / "test.parquet", 0)
    refused(tmp_path, "test have no rows", "test.parquet", source="parquet")


def test_a_null_picture_names_its_row(tmp_path, hf_cache):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": [png(0), None]}), tmp_path / "only.parquet")
    reader = opened(tmp_path, source="parquet").train.reader
    with pytest.raises(OSError, match="no picture"):
        reader.content(1)
    assert reader.where(1) == f"row 1 of {tmp_path / 'only.parquet'}"


def test_parquet_files_that_are_refused(tmp_path, hf_cache):
    write_parquet(tmp_path / "mixed" / "train.parquet", 2)
    write_parquet(tmp_path / "mixed" / "rest.parquet", 2)
    refused(tmp_path / "mixed", "name no split", "rest.parquet", source="parquet")
    write_parquet(tmp_path / "held" / "test.parquet", 2)
    refused(tmp_path / "held", "none of train", source="parquet")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "train.parquet").write_bytes(b"PAR1 no")
    refused(tmp_path / "bad", "train.parquet", "cannot be read", source="parquet")
    write_parquet(tmp_path / "list" / "train.parquet", 2, label=[[0, 1], [1, 0]])
    refused(tmp_path / "list", "list", "--data.label_column", source="parquet")
    (tmp_path / "none").mkdir()
    refused(tmp_path / "none", "no .parquet files", source="parquet")


def write_idx(folder: Path, packed: bool) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 20), ("t10k", 6)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}i", *array.shape)
            content = head + array.tobytes()
            name = f"{prefix}-{kind}-ubyte"
            path = folder / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(content, 1) if packed else content)
    return images


@pytest.mark.parametrize("place", ["FashionMNIST/raw", "raw", "."])
@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read_where_they_lie(tmp_path, place, packed):
    images = write_idx(tmp_path / place, packed)
    source = opened(tmp_path, source="fashion_mnist")
    assert sizes(source) == (20, None, 6) and source.label_names[9] == "Ankle boot"
    assert np.array_equal(source.test.reader.content(5), images[5])
    assert source.test.labels.tolist() == [*range(6)]


def test_damaged_idx_files_are_refused(tmp_path):
    write_idx(tmp_path, packed=False)
    path = tmp_path / "t10k-images-idx3-ubyte"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    refused(tmp_path, str(path), "6 x 28 x 28 = 4,704 bytes, and 4,703 follow", source="mnist")
    path.write_bytes(b"<html>" + content)
    refused(tmp_path, "begins with", source="mnist")
    path.unlink()
    refused(tmp_path, "lacks t10k-images-idx3-ubyte", source="mnist")
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(content)[:-20])
    refused(tmp_path, "damaged", source="mnist")


def test_metadata_of_others_beside_pictures_hides_none(tmp_path):
    """samples.json is a name of other programs too."""
    write_pictures(tmp_path, 4)
    (tmp_path / "ant" / "samples.json").write_text('{"samples": []}')
    (tmp_path / "bee" / "run.json").write_text("no JSON")
    source = opened(tmp_path)
    assert len(source.train) == 4 and source.label_names == ("ant", "bee")
