"""Parquet in the Hugging Face layout, local files or a data set on the hub, read through `datasets`.

data/train-00000-of-00002.parquet       my_train_part1.parquet      train/0.parquet
data/test-00000-of-00001.parquet        my_val.parquet              validation/0.parquet
"""

import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import escape, glob, has_magic
from pathlib import Path
from typing import Any

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data

from .columns import LABEL_COLUMNS, find_column, no_classes
from .labels import classes_of
from .picture_files import walk
from .source import Pictures, Source, counted, explicit_roots, in_words, one_line, printable
from .splits import in_order, split_in_path, split_of

IMAGE_COLUMNS = ("image", "img", "picture", "jpg", "png")
ENDING = ".parquet"


@dataclass(frozen=True)
class ColumnReader:
    """Pictures in the image column of a Hugging Face data set."""

    dataset: Any
    column: str
    files: Sequence[str] = ()  # the local files that it was made of, in order
    ends: Sequence[int] = ()  # the number of rows up to the end of each

    def content(self, index: int) -> bytes:
        cell = self.dataset[index][self.column]
        if cell is not None and cell["bytes"]:
            return cell["bytes"]
        if cell is not None and cell["path"] and os.path.isfile(cell["path"]):
            return Path(cell["path"]).read_bytes()
        named = cell and cell["path"]
        raise OSError(f"there is no file {one_line(named)}" if named else "the row has no picture")

    def where(self, index: int) -> str:
        if not self.files:
            return f"row {index} of column {self.column!r}"
        place = bisect_right(self.ends, index)
        row = index - (self.ends[place - 1] if place else 0)
        return f"row {row} of {printable(self.files[place])}"

    def stamp(self, index: int) -> tuple[int, int]:
        if not self.files:
            return len(self.content(index)), 0
        status = os.stat(self.files[bisect_right(self.ends, index)])
        return status.st_size, status.st_mtime_ns


def load(data: Data) -> Source:
    """The pictures and, where there is such a column, the labels.

    Raises:
        UserError: there are no such files, columns or pictures, or the labels are no classes.
    """
    files, left_out = _local_files(data)
    opened = _open_files(files) if files else _open_hub(data.root)
    where = "the Parquet files" if files else f"the data set {data.root}"
    image = find_column(opened["train"].column_names, data.image_column, IMAGE_COLUMNS, "image_column", where)
    if image is None:
        raise UserError(
            f"{where} have the columns {', '.join(opened['train'].column_names)}, and none of "
            f"{', '.join(IMAGE_COLUMNS)}: name the one with the pictures, --data.image_column COLUMN"
        )
    labels, label_names, note = _labels(opened, files, data, where, image)
    parts = {}
    for split, dataset in opened.items():
        if labels is not None and split not in labels:
            continue  # its labels are hidden
        numbers = None if labels is None or not label_names else labels[split]
        reader = _reader(dataset, image, files.get(split, ()), f"the {split} split of {where}")
        parts[split] = Pictures(reader, [str(row) for row in range(len(dataset))], numbers)
    seen = ", ".join(_seen(split, paths) for split, paths in files.items()) or "from the hub"
    layout = f"Parquet, {seen}, column {image!r}; {note}"
    return Source(parts["train"], parts.get("test"), label_names, parts.get("validation"), layout, left_out)


def _seen(split: str, paths: Sequence[str]) -> str:
    """The files of a split in words; those of several folders may be several data sets, and are one."""
    folders = sorted({os.path.dirname(path) for path in paths})
    together = f", all of the folders {in_words([*map(printable, folders)])}" if len(folders) > 1 else ""
    return f"{split} in {counted(len(paths), 'file')}{together}"


def _local_files(data: Data) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Parquet files by split, and what was left out by kind; {} where data.root names a set of the hub."""
    roots = explicit_roots(data)
    if roots:
        by_split = {split: _parquet_under(root, f"data.{split}_root") for split, root in roots.items()}
        _refuse_shared({split: paths for split, (_, paths, _) in by_split.items()})
        return {split: paths for split, (_, paths, _) in by_split.items()}, {}
    if not (Path(data.root).exists() or has_magic(data.root) or data.root.endswith(ENDING)):
        return {}, {}
    base, paths, left_out = _parquet_under(data.root, "data.root")
    return _told_from_names(base, paths), left_out


def _parquet_under(root: str, setting: str) -> tuple[str, list[str], dict[str, int]]:
    """The fixed part of a folder, file or pattern, the files there, and what was left out by kind."""
    left_out: dict[str, int] = {}
    if Path(root).is_dir():
        listing = walk(Path(root), frozenset((ENDING,)))
        base, left_out = root, dict(listing.left_out)
        paths = [os.path.join(root, name) for name in listing.names]
    else:
        paths = sorted(path for path in glob(root, recursive=True) if path.endswith(ENDING))
        paths = [root] if os.path.isfile(root) else paths
        parts = Path(root).parts[:-1]
        fixed = next((place for place, part in enumerate(parts) if has_magic(part)), len(parts))
        base = str(Path(*parts[:fixed])) if fixed else ""
    if not paths:
        raise UserError(
            f"no {ENDING} files are at {setting} ({root!r}); give a folder, a pattern, or a hub name: "
            f"--{setting} PATH"
        )
    return base, paths, left_out


def _refuse_shared(by_split: Mapping[str, Sequence[str]]) -> None:
    splits = in_order(by_split)
    for place, split in enumerate(splits):
        for other in splits[place + 1 :]:
            real = {os.path.realpath(path) for path in by_split[split]}
            if shared := [path for path in by_split[other] if os.path.realpath(path) in real]:
                raise UserError(
                    f"data.{split}_root and data.{other}_root share files: {in_words(shared)}; give each its "
                    "own"
                )


def _told_from_names(base: str, paths: Sequence[str]) -> dict[str, list[str]]:
    """Files by the split that names of files, or of folders below `base`, tell; the others are of train."""
    by_split: dict[str | None, list[str]] = {}
    for path in paths:
        relative = Path(os.path.relpath(path, base or ".")).as_posix()
        by_split.setdefault(split_in_path(relative), []).append(path)
    unnamed = by_split.pop(None, [])
    if unnamed and "train" in by_split:
        raise UserError(
            f"{len(unnamed):,} Parquet files name no split beside others that do: {in_words(unnamed)}. "
            "Say which to use: --data.train_root PATTERN --data.test_root PATTERN"
        )
    if unnamed:
        by_split["train"] = unnamed
    if "train" not in by_split:
        raise UserError(
            f"the Parquet files are of {', '.join(map(str, by_split))} and none of train "
            f"({in_words(paths)}). Say what to learn from: --data.train_root PATTERN"
        )
    return {split: by_split[split] for split in in_order(by_split)}


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            "data.source parquet reads through the package datasets: pip install 'vqprior[data]'"
        ) from error
    return datasets


def _open_files(files: Mapping[str, list[str]]) -> dict[str, Any]:
    """Each split alone, since their columns may differ: a test split can lack labels."""
    datasets = _datasets()
    opened = {}
    for split, paths in files.items():
        filled = [path for path in paths if _row_count(path)]  # which names a damaged file
        if not filled:
            raise UserError(f"the Parquet files of {split} have no rows: {in_words(paths)}; move them away")
        try:
            exact = [escape(os.path.abspath(path)) for path in filled]  # it takes them for patterns
            opened[split] = datasets.load_dataset("parquet", data_files={split: exact}, split=split)
        except Exception as error:  # whatever differing or damaged files cause in there
            raise UserError(
                f"the Parquet files of {split} cannot be read together: {in_words(paths)} "
                f"({error.__cause__ or error})"
            ) from error
    return opened


def _open_hub(name: str) -> dict[str, Any]:
    datasets = _datasets()
    try:
        hub = datasets.load_dataset(name)
    except Exception as error:  # what a network or a hub may answer
        raise UserError(
            f"data.root {name!r} is neither local Parquet files nor a data set that the hub gives ({error})"
        ) from error
    opened: dict[str, Any] = {}
    for word, dataset in hub.items():
        split = split_of(word)
        if split in opened:
            raise UserError(
                f"the data set {name} has two splits for {split}: {', '.join(hub)}; save it and use files"
            )
        if split:
            opened[split] = dataset
    if "train" not in opened:
        raise UserError(f"data.root {name!r} has no train split; it has {', '.join(hub)}")
    return {split: opened[split] for split in in_order(opened)}


def _row_count(path: str) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path).metadata.num_rows
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{printable(path)} cannot be read as Parquet ({error}); copy it again") from error


def _reader(dataset: Any, image: str, files: Sequence[str], where: str) -> ColumnReader:
    """Encoded pictures in a column of bytes, of {bytes, path}, or of Hugging Face's images."""
    if image not in dataset.column_names:
        raise UserError(f"{where} lacks the column {image!r}; it has {', '.join(dataset.column_names)}")
    try:
        dataset = dataset.select_columns([image]).cast_column(image, _datasets().Image(decode=False))
    except Exception as error:  # Arrow and datasets raise several types
        raise UserError(
            f"the column {image!r} of {where} holds {dataset.features[image]}, expected encoded pictures as "
            "bytes or {bytes, path}: name another, --data.image_column COLUMN"
        ) from error
    ends, total = [], 0
    for path in files:
        total += _row_count(path)
        ends.append(total)
    return ColumnReader(dataset, image, files if total == len(dataset) else (), ends)


def _labels(
    opened: Mapping[str, Any], files: Mapping[str, Sequence[str]], data: Data, where: str, image: str | None
) -> tuple[Any, tuple[str, ...], str]:
    """Labels by split, the names of the classes, and a note; None where there is no such column."""
    if not data.labels:
        return None, (), "no classes (data.labels False)"
    train = opened["train"]
    column = find_column(train.column_names, data.label_column, LABEL_COLUMNS, "label_column", where)
    if column is None:
        return None, (), no_classes(train.column_names, (image,))
    lacking = [split for split, dataset in opened.items() if column not in dataset.column_names]
    values = {split: dataset[column][:] for split, dataset in opened.items() if split not in lacking}
    given = {split: names for split in values if (names := _class_names(opened[split].features, column))}
    _refuse_other_names(files, column)
    labels, label_names, note = classes_of(values, f"the column {column!r} of {where}", given)
    if lacking:
        note += f"; {', '.join(lacking)} has no column {column!r} and is not used"
    return labels, label_names, note


def _class_names(features: Mapping[str, Any], column: str) -> list[str] | None:
    """What the numbers of a column mean, where the data say so."""
    return getattr(features.get(column), "names", None)


def _refuse_other_names(files: Mapping[str, Sequence[str]], column: str) -> None:
    """Refuse files of one split that say otherwise what the numbers of a column mean: they are read as one,
    by the names of the first."""
    import pyarrow.parquet as pq

    for paths in files.values():
        named: dict[tuple[str, ...], str] = {}
        for path in paths:
            features = _datasets().Features.from_arrow_schema(pq.read_schema(path))
            if names := _class_names(features, column):
                named.setdefault(tuple(names), path)
        if len(named) > 1:
            (names, path), (others, other), *_ = named.items()
            raise UserError(
                f"the column {column!r} has the classes {in_words(names)} in {printable(path)} and "
                f"{in_words(others)} in {printable(other)}: write both with the same ones, in one order, or "
                "learn without classes: --data.labels False"
            )
