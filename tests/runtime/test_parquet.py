"""Parquet files as Hugging Face writes them: splits, columns, classes."""

from pathlib import Path

import pytest

from tests.conftest import colour
from tests.sources import opened, refused, sizes


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
    unnamed = opened(Path("nowhere"), source="parquet", **roots)
    assert "if one of kind, other has them, --data.label_column COLUMN" in unnamed.layout
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
