"""Which splits and classes the names of folders are understood as, and what is said and refused."""

import shlex

import pytest

from tests.conftest import write_pictures
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


def test_folders_that_differ_by_words_of_splits_are_said_to(tmp_path):
    for names in (("train2017", "val2017"), ("seg_pred", "seg_test", "seg_train")):
        write_pictures(tmp_path / names[0], 6, names)
        layout = opened(tmp_path / names[0]).layout
        assert f"({', '.join(names)}; if these are splits, say" in layout and "--data.train_root" in layout
    write_pictures(tmp_path / "things", 6, ("test tube", "training shoe", "dev"))
    assert opened(tmp_path / "things", train_root=str(tmp_path / "things")).layout.endswith("folder a class")
