"""Where the settings say that pictures are, and what is no folder of them."""

import os
import subprocess

import pytest

from tests.conftest import TINY, write_pictures
from tests.forked import environment
from tests.launch import command_line
from tests.sources import opened, refused, sizes


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


def test_a_folder_whose_own_name_is_no_utf8_can_be_learnt_from(tmp_path):
    """Its settings, the command and the first line go into files of text."""
    root = write_pictures(tmp_path / os.fsdecode(b"caf\xe9"))
    words = ["train-vqvae", "folder", *TINY, "--data.root", root, "--out", tmp_path / "run"]
    ended = subprocess.run(command_line(words), env=environment(None), capture_output=True)
    assert ended.returncode == 0, ended.stderr


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
    assert f"has classes: --data.table {tmp_path}/metadata.jsonl" in opened(tmp_path).layout
    assert opened("", train_root=str(tmp_path)).layout.endswith("name it: --data.table FILE")
    (tmp_path / "b.csv").touch()
    assert "one of b.csv, metadata.jsonl has classes, name it: --data.table FILE" in opened(tmp_path).layout


def test_pictures_of_splits_beside_their_tables_say_how_to_use_these(tmp_path):
    for split in ("train", "test"):
        write_pictures(tmp_path / "data" / split, 2, ())
        text = "file_name,label\npicture0.png,a\npicture1.png,b\n"
        (tmp_path / "data" / split / "metadata.csv").write_text(text)
    said = opened(tmp_path).layout
    assert said.endswith(f"{tmp_path}/data/train/metadata.csv has classes: --data.table metadata.csv")
    assert opened(tmp_path, table=said.split()[-1]).label_names == ("a", "b")
