"""A table of pictures, as people and their programs write it."""

import json
from pathlib import Path

import pytest

from tests.conftest import write_pictures
from tests.sources import opened, refused, sizes
from vqprior.configs import UserError


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
    assert bare.layout.endswith("so no classes")
    other = opened(tmp_path, table=csv_table(tmp_path, "file,phase,well,split\npicture0.png,a,1,train\n"))
    assert other.layout.endswith("so no classes; if one of phase, well has them, --data.label_column COLUMN")


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
    refused(tmp_path, "names no file in 1 row, the first at picture 2", table=table, on_error=on_error)


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
        ("file,split\npicture0.png,train\npicture1.png,holdout\n", ("'holdout' in 1 row", "training")),
        ("file,label\npicture0.png,a\npicture1.png,\n", ("no label", "1 of 2 rows")),
        ("name,label\nsomeone,a\n", ("name, label", "--data.image_column")),
        ("file,split\npicture0.png,test\n", ("no train",)),
        ("file,label\npicture0.png,a,b\n", ("line 2", "quotes")),
        ("", ("no rows",)),
        ("file\na\\picture0.png\n", ("There is a/picture0.png", "with / between folders")),
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


def test_a_table_of_json_lines(tmp_path):
    write_pictures(tmp_path, 3, ())
    rows = [{"file_name": "picture0.png", "label": "b"}, {"file_name": "picture1.png", "label": "a"}]
    table = tmp_path / "metadata.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    source = opened(tmp_path, table=str(table))
    assert source.label_names == ("a", "b") and source.train.labels.tolist() == [1, 0]
    table.write_text(json.dumps(rows[0]) + '\n{"file_name": "picture1.png"}')
    refused(tmp_path, "no label in 1 of 2 rows", table=str(table))
    for text, words in (
        ("[1]", "line 1 of data.table"),
        (json.dumps(rows[0]) + '\n\n"a"', "line 3 of data.table"),
        (json.dumps(rows[0]) + '\n{"file_name": ', "(Expecting value at character 15)"),
    ):
        table.write_text(text)
        refused(tmp_path, "cannot be read as JSON", words, table=str(table))
    table.write_bytes(json.dumps(rows[0]).encode() + b'\n{"label": "\xe9"}')
    refused(tmp_path, "line 2 of data.table", "utf-8", table=str(table))
    table.write_text("")
    refused(tmp_path, "has no rows", table=str(table))


def test_what_the_first_line_of_a_table_of_json_lines_lacks_is_not_dropped(tmp_path):
    """Else all would be learnt from, test pictures too, or without classes."""
    write_pictures(tmp_path, 3, ())
    first, second = {"file_name": "picture0.png"}, {"file_name": "picture1.png"}
    table = tmp_path / "metadata.jsonl"
    table.write_text("\n".join(map(json.dumps, (first, second | {"label": "a"}))))
    refused(tmp_path, "no label in 1 of 2 rows", table=str(table))
    table.write_text("\n".join(map(json.dumps, (first, second | {"split": "test"}))))
    refused(tmp_path, "nothing in 1 row", table=str(table))


def test_where_the_files_of_a_table_lie_it_is_said(tmp_path, monkeypatch):
    write_pictures(tmp_path / "all" / "the pictures", 2, ())
    table = csv_table(tmp_path / "all", "file\npicture0.png\npicture1.png\n")
    for root in (tmp_path / "all", tmp_path):
        refused(root, f"--data.root '{tmp_path}/all/the pictures'", table=table)
    monkeypatch.chdir(tmp_path / "all" / "the pictures")
    refused(tmp_path, "--data.root .", table=table)


def test_files_outside_the_root_are_said(tmp_path):
    write_pictures(tmp_path / "in", 2, ())
    write_pictures(tmp_path / "out", 1, ())
    inside = f"file\npicture0.png\n{tmp_path}/in/picture1.png\n"
    assert "outside data.root" not in opened(tmp_path / "in", table=csv_table(tmp_path, inside)).layout
    text = inside + "../out/picture0.png\n"
    said = opened(tmp_path / "in", table=csv_table(tmp_path, text)).layout
    assert "files outside data.root among them (../out/picture0.png)" in said


@pytest.mark.parametrize("inside", ["", "data"])
def test_a_table_for_each_split_in_its_folder(tmp_path, inside):
    """As image folders of Hugging Face have them; here two pictures have one name."""
    top = tmp_path / inside
    for split, labels in (("train", ("b", "a", "b")), ("Testing", ("a",))):
        write_pictures(top / split / "in", len(labels), ())
        rows = "".join(f"in/picture{number}.png,{label}\n" for number, label in enumerate(labels))
        csv_table(top / split, f"file_name,label\n{rows}")
    source = opened(tmp_path, table="table.csv")
    assert sizes(source) == (3, None, 1) and source.label_names == ("a", "b")
    assert source.train.labels.tolist() == [1, 0, 1] and source.test.labels.tolist() == [0]
    assert source.train.keys[0] == f"{inside}/train/in/picture0.png".lstrip("/")
    assert f"the tables {top}/train/table.csv, {top}/Testing/table.csv" in source.layout
    refused(tmp_path, "all splits: --data.table table.csv", table=str(top / "train" / "table.csv"))
    refused(tmp_path, "metadata.csv", "not a file", table="other.csv")
    (top / "Testing" / "table.csv").write_text("file_name\nin/picture0.png\n")
    refused(tmp_path, "no label in 1 of 1 rows of test", table="table.csv")
    write_pictures(top / "test", 1, ())
    csv_table(top / "test", "file_name\npicture0.png\n")
    refused(tmp_path, "several tables table.csv of the test split", table="table.csv")


def test_tables_of_json_by_other_endings(tmp_path):
    write_pictures(tmp_path, 2, ())
    rows = [{"file": "picture0.png", "label": "b"}, {"file": "picture1.png", "label": "a"}]
    lines = "\n".join(map(json.dumps, rows))
    for name, text in (("a.ndjson", lines), ("b.json", lines), ("c.json", json.dumps(rows, indent=1))):
        (tmp_path / name).write_text(text)
        assert opened(tmp_path, table=str(tmp_path / name)).train.labels.tolist() == [1, 0]
    for text, words in (
        ("[1]", "is no list of objects"),
        ('{\n"images": [{"file_name": "picture0.png"}]\n}', "is no list of objects"),
        ('{"file": {"0": "picture0.png"}}', "is no list of objects"),
        ("[1", "cannot be read as JSON"),
        ("[]", "no rows"),
    ):
        (tmp_path / "d.json").write_text(text)
        refused(tmp_path, words, table=str(tmp_path / "d.json"))


def test_the_column_of_the_files_is_told_by_them(tmp_path):
    """Tables of Kaggle's call it id, image_id, ..., and leave the endings out."""
    write_pictures(tmp_path / "train", 3, ())
    text = "n,id,breed\n7,picture0,pug\n8,picture1,poodle\n"
    source = opened(tmp_path / "train", table=csv_table(tmp_path, text), label_column="breed")
    assert source.train.keys == ["picture0.png", "picture1.png"] and source.label_names == ("poodle", "pug")
    assert "column 'id', with the endings of the files (.png)" in source.layout
    (tmp_path / "train" / "picture1.png").rename(tmp_path / "train" / "picture1.PNG")
    assert opened(tmp_path / "train", table=csv_table(tmp_path, text)).train.keys[1] == "picture1.PNG"
    refused(tmp_path, f"--data.root {tmp_path}/train", table=csv_table(tmp_path, text))
    some_without = csv_table(tmp_path, "id\npicture0\npicture1.PNG\ngone\n")
    refused(tmp_path / "train", "There is picture0.png", table=some_without)
    twice = csv_table(tmp_path, "id\npicture0\npicture0.png\n")
    refused(tmp_path / "train", "1 file more than once: picture0.png", table=twice)


def test_labels_are_no_names_of_files(tmp_path):
    """The picture 1.png is not that of class 1."""
    write_pictures(tmp_path, 2, ())
    for number in (0, 1):
        (tmp_path / f"picture{number}.png").rename(tmp_path / f"{number + 1}.png")
    for column in ("class", "kind"):
        table = csv_table(tmp_path, f"{column},id\n1,2\n2,1\n")
        source = opened(tmp_path, table=table, label_column=column)
        assert source.train.keys == ["2.png", "1.png"] and source.train.labels.tolist() == [0, 1]


def test_a_table_in_the_folder_of_the_pictures_is_found_by_its_name(tmp_path):
    write_pictures(tmp_path, 2, ())
    csv_table(tmp_path, "file\npicture0.png\n")
    source = opened(tmp_path, table="table.csv")
    assert len(source.train) == 1 and f"the table {tmp_path}/table.csv" in source.layout


def test_what_is_no_name_of_a_file_is_not_shown_whole(tmp_path):
    """Tables of Hugging Face may hold whole pictures."""
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": {"path": "a.png", "bytes": "x" * 9999}}))
    with pytest.raises(UserError, match="in a row for each picture") as caught:
        opened(tmp_path, table=str(tmp_path / "t.jsonl"))
    assert len(str(caught.value)) < 500


def test_a_table_without_names_of_columns_loses_no_picture(tmp_path):
    write_pictures(tmp_path, 3, ())
    for text in ("picture0.png,a\npicture1.png,b\n", "picture0,a\npicture1,b\n"):
        refused(tmp_path, "begins with a picture", "file,label", table=csv_table(tmp_path, text))


def test_absolute_names_do_not_say_where_the_pictures_lie(tmp_path):
    """Splits that are cut go by the names."""
    write_pictures(tmp_path / "in", 2, ())
    write_pictures(tmp_path / "out", 1, ())
    names = [f"{tmp_path}/in/picture{number}.png" for number in (0, 1)] + [f"{tmp_path}/out/picture0.png"]
    keys = opened(tmp_path / "in", table=csv_table(tmp_path, "\n".join(("file", *names)))).train.keys
    assert keys == ["picture0.png", "picture1.png", names[2]]
    twice = csv_table(tmp_path, f"file\n{names[0]}\npicture0.png\n")
    refused(tmp_path / "in", "1 file more than once: picture0.png", table=twice)
