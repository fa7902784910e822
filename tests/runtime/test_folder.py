"""What a folder of pictures is understood as, and what is said and refused."""

import os
import shlex
import subprocess

import pytest

from tests.conftest import TINY, colour, write_pictures
from tests.forked import environment
from tests.launch import command_line
from tests.sources import opened, refused, sizes
from vqprior import configs
from vqprior.runtime.data import open_source


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
    bare = opened(tmp_path / "splits", labels=False).layout
    assert (
        f"(data.labels False); to go by the sub-folders test, train: --data.root {tmp_path}/splits/a/b"
        in bare
    )
    assert "--data.root" not in opened(tmp_path / "splits" / "a" / "b", labels=False).layout
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


def test_metadata_of_others_beside_pictures_hides_none(tmp_path):
    """samples.json is a name of other programs too."""
    write_pictures(tmp_path, 4)
    (tmp_path / "ant" / "samples.json").write_text('{"samples": []}')
    (tmp_path / "bee" / "run.json").write_text("no JSON")
    source = opened(tmp_path)
    assert len(source.train) == 4 and source.label_names == ("ant", "bee")


def test_folders_of_network_drives_and_systems_are_no_data(tmp_path):
    """Of a Synology's thumbnails some would be in other splits than the pictures that they are of."""
    write_pictures(tmp_path, 4)
    write_pictures(tmp_path / "ant", 2, ("@eaDir/picture0.png",))
    write_pictures(tmp_path, 2, ("__MACOSX",))
    source = opened(tmp_path)
    assert len(source.train) == 4 and source.label_names == ("ant", "bee")
    assert source.left_out == {"named @eaDir": 1, "named __MACOSX": 1}


def test_folders_that_differ_by_words_of_splits_are_said_to(tmp_path):
    for names in (("train2017", "val2017"), ("seg_pred", "seg_test", "seg_train")):
        write_pictures(tmp_path / names[0], 6, names)
        layout = opened(tmp_path / names[0]).layout
        assert f"({', '.join(names)}; if these are splits, say" in layout and "--data.train_root" in layout
    write_pictures(tmp_path / "things", 6, ("test tube", "training shoe", "dev"))
    assert opened(tmp_path / "things", train_root=str(tmp_path / "things")).layout.endswith("folder a class")


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.zip", "unpack"), ("a.parquet", "--data.source parquet"), ("a", "--data.root FOLDER")],
)
def test_a_file_in_place_of_a_folder(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"x")
    refused(tmp_path / name, "not a folder", words)


def test_flat_pictures_beside_a_table_say_how_to_use_it(tmp_path):
    write_pictures(tmp_path, 4, ())
    assert "--data.table" not in opened(tmp_path).layout
    (tmp_path / "metadata.jsonl").write_text("{}")
    assert "--data.table FILE" in opened(tmp_path).layout
