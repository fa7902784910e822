"""A table of pictures, CSV, Parquet or JSON lines: a row for each, its file and, if wanted, label and split.

file,label,split            {"file_name": "a/1.jpg", "label": "cat", "split": "train"}
a/1.jpg,cat,train           {"file_name": "a/2.jpg", "label": "dog", "split": "test"}
a/2.jpg,dog,test

Or one table of a name for each split, in its folder, as image folders of Hugging Face have them; files are
relative to it:

train/metadata.csv    train/1.jpg    test/metadata.csv    test/2.jpg
"""

import glob
import os
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from reprlib import repr as shortly
from typing import Any

import numpy as np

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data

from .columns import LABEL_COLUMNS, SPLIT_COLUMN, Columns, find_column, no_classes, read_table
from .labels import classes_of
from .picture_files import ENDINGS, FileReader
from .source import Pictures, Source, counted, in_words, printable
from .splits import all_words, in_order, split_of

FILE_COLUMNS = ("file", "filename", "file_name", "image", "path")


def load_table(data: Data) -> Source:
    """The pictures that data.table lists, which may lie in data.root; files are relative to that.

    Raises:
        UserError: the table cannot be read, lists missing files or one twice, or has unknown words of splits.
    """
    if not Path(data.table).is_file() and (inside := Path(data.root, data.table)).is_file():
        data = replace(data, table=str(inside))
    table = Path(data.table)
    tables = {} if table.is_file() else tables_of_splits(Path(data.root), data.table)
    if not tables:
        columns = read_table(table)
        file_column = _file_column(columns, data, table)
        seen = f"the table {table}"
    else:
        columns, file_column = _joined(tables, data)
        seen = f"the tables {in_words([*map(printable, map(str, tables.values()))])}"
    names, without = _names(columns[file_column], data)
    _require_files(names, data)
    rows = _rows_by_split(columns, len(names), table)
    labels, label_names, note = _labels(columns, rows, data, file_column)
    parts = {}
    for split, indices in rows.items():
        if labels is not None and split not in labels:
            continue  # its labels are hidden
        of_split = [names[index] for index in indices]
        numbers = None if labels is None or not label_names else labels[split]
        parts[split] = Pictures(FileReader(Path(data.root), of_split), [*map(printable, of_split)], numbers)
    seen += f", column {file_column!r}" + (" and splits" if SPLIT_COLUMN in columns else "")
    if without:
        seen += f", with the endings of the files ({without})"
    if outside := [name for name in names if _is_outside(name, data.root)]:
        seen += f", files outside data.root among them ({in_words([*map(printable, outside)])})"
    layout = f"{seen}; {note}"
    return Source(parts["train"], parts.get("test"), label_names, parts.get("validation"), layout)


def tables_of_splits(root: Path, name: str) -> dict[str, Path]:
    """The tables of a name in the folders of splits, which may lie in one more folder.

    Raises:
        UserError: there are several of one split.
    """
    if name != os.path.basename(name):
        return {}
    pattern = glob.escape(name)
    found = sorted((*root.glob(f"*/{pattern}"), *root.glob(f"*/*/{pattern}")))
    tables: dict[str, Path] = {}
    for path in found:
        split = split_of(path.parent.name)
        if split is None or not path.is_file():
            continue
        if split in tables:
            raise UserError(
                f"there are several tables {name} of the {split} split, {tables[split]} and {path}; give the "
                "folder of one set of pictures, --data.root FOLDER, or a path: --data.table PATH"
            )
        tables[split] = path
    return {split: tables[split] for split in in_order(tables)}


def _joined(tables: Mapping[str, Path], data: Data) -> tuple[Columns, str]:
    """The tables of the splits as one, with a column `split`, and the column of its files, which are relative
    to data.root there; a value that a table has no column for is None."""
    parts = []
    for split, table in tables.items():
        columns = read_table(table)
        file_column = _file_column(columns, data, table)
        folder = os.path.relpath(table.parent, data.root)
        files = [_below(folder, file) for file in columns[file_column]]
        parts.append(columns | {file_column: files, SPLIT_COLUMN: [split] * len(files)})
    names = dict.fromkeys(chain.from_iterable(parts))
    count = [len(part[SPLIT_COLUMN]) for part in parts]
    joined = {
        name: [*chain.from_iterable(part.get(name, [None] * n) for part, n in zip(parts, count, strict=True))]
        for name in names
    }
    return joined, file_column


def _below(folder: str, file: Any) -> Any:
    return file if file in (None, "") else os.path.join(folder, str(file))


def _file_column(columns: Columns, data: Data, table: Path) -> str:
    """The column of the files: as it is set, of a usual name, or the first that begins with a file and is not
    of labels or splits, whose numbers may be names of files, too.

    Raises:
        UserError: there is none, or there are no names of columns.
    """
    where = f"data.table {table}"
    if column := find_column(columns, data.image_column, FILE_COLUMNS, "image_column", where):
        return column
    folders = _places(table, data.root)
    if any(_file_of(name, folders) for name in columns):
        raise UserError(
            f"{where} begins with a picture ({', '.join(columns)}); put a row above it with the names of the "
            "columns, such as file,label"
        )
    labels = find_column(columns, data.label_column, LABEL_COLUMNS, "label_column", where)
    for name, values in columns.items():
        if name not in (labels, SPLIT_COLUMN) and _file_of(values[0], folders):
            return name
    raise UserError(
        f"{where} has the columns {', '.join(columns)}, none of {', '.join(FILE_COLUMNS)}, and none has a "
        f"file below data.root ({data.root}): name the one with the files, --data.image_column COLUMN"
    )


def _file_of(value: Any, folders: Iterable[Path]) -> str | None:
    """The name of the file in one of these folders that a value is, without its ending or with it."""
    if value in (None, "", "."):
        return None
    endings = [*sorted(ENDINGS), *sorted(ending.upper() for ending in ENDINGS)]
    names = [str(value), *(f"{value}{ending}" for ending in endings)]
    return next((name for folder in folders for name in names if os.path.isfile(folder / name)), None)


def _names(files: Sequence[Any], data: Data) -> tuple[list[str], str]:
    """The files, in one spelling each: those below data.root relative to it, so that neither the split nor a
    run hangs on where that lies; and the endings that they lacked, in words."""
    table = data.table
    if others := [file for file in files if isinstance(file, dict | list | bytes)]:
        raise UserError(
            f"data.table {table} holds {shortly(others[0])} where it takes the name of a file, in a row for "
            "each picture; for Parquet files with the pictures in them --data.source parquet"
        )
    if empty := [row for row, file in enumerate(files) if file is None or file == "" or "\0" in str(file)]:
        raise UserError(
            f"data.table {table} names no file in {counted(len(empty), 'row')}, the first at picture "
            f"{empty[0] + 1}"
        )
    names = [os.path.normpath(str(file)) for file in files]
    names = [
        os.path.relpath(name, data.root) if os.path.isabs(name) and not _is_outside(name, data.root) else name
        for name in names
    ]
    names, without = _with_endings(names, data.root)
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(
            f"data.table {table} lists {counted(len(twice), 'file')} more than once: {in_words(twice)}; "
            "leave one row of each"
        )
    return names, without


def _with_endings(names: list[str], root: str) -> tuple[list[str], str]:
    """The names with the endings of their files, where all lack theirs, as in tables of Kaggle's, and those
    endings in words; empty where none does."""
    if not names or os.path.isfile(os.path.join(root, names[0])):
        return names, ""
    whole = [_file_of(name, (Path(root),)) for name in names]
    if None in whole:
        return names, ""
    return whole, ", ".join(sorted({os.path.splitext(name)[1] for name in whole}))


def _is_outside(name: str, root: str) -> bool:
    far = os.path.isabs(name) or name.startswith(os.pardir)  # all others need no look at the root
    return far and os.path.relpath(os.path.join(root, name), root).split(os.sep)[0] == os.pardir


def _require_files(names: Sequence[str], data: Data) -> None:
    """Under data.on_error skip the missing ones are pictures that cannot be read."""
    missing = [name for name in names if not os.path.isfile(os.path.join(data.root, name))]
    if missing and (data.on_error == "stop" or len(missing) == len(names)):
        raise UserError(
            f"{len(missing):,} of the {len(names):,} files that data.table {data.table} lists are not below "
            f"data.root ({data.root}): {in_words(missing)}. {_nearly(missing, data)}"
        )


def _nearly(missing: Sequence[str], data: Data) -> str:
    """What to do about files that are missing: those of Windows, or without endings, are there by another
    name."""
    first, table = missing[0], Path(data.table)
    if split_of(table.parent.name) and len(tables_of_splits(Path(data.root), table.name)) > 1:
        return f"For the tables of all splits: --data.table {table.name}"
    others = [first.replace("\\", "/"), *(first + ending for ending in sorted(ENDINGS))]
    if there := [name for name in others if os.path.isfile(os.path.join(data.root, name))]:
        return f"There is {there[0]}: write names in the table as the files have them, with / between folders"
    root = next((str(folder) for folder in _places(table, data.root) if _file_of(first, (folder,))), "FOLDER")
    return f"Give the folder that they are relative to: {shlex.join(('--data.root', root))}"


def _places(table: Path, root: str) -> list[Path]:
    """Where the files of a table may lie."""
    folders = (Path(root), Path(), table.parent)
    return [*folders, *_folders_in(table.parent), *_folders_in(Path(root))]


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_dir())


def _rows_by_split(columns: Columns, count: int, table: Path) -> Mapping[str, list[int]]:
    """The rows of each split; all are of train where there is no such column."""
    if SPLIT_COLUMN not in columns:
        return {"train": list(range(count))}
    rows: dict[str, list[int]] = {}
    unknown: Counter[str] = Counter()
    for row, word in enumerate(columns[SPLIT_COLUMN]):
        split = split_of("" if word is None else str(word))
        if split is None:
            unknown["nothing" if word in (None, "") else repr(word)] += 1
        else:
            rows.setdefault(split, []).append(row)
    if unknown:
        found = in_words([f"{word} in {counted(number, 'row')}" for word, number in unknown.items()])
        raise UserError(f"the column split of data.table {table} holds {found}; it takes {all_words()}")
    if "train" not in rows:
        raise UserError(
            f"the column split of data.table {table} has {', '.join(rows)} and no train to learn from"
        )
    return {split: rows[split] for split in in_order(rows)}


def _labels(
    columns: Columns,
    rows: Mapping[str, list[int]],
    data: Data,
    file_column: str,
) -> tuple[dict[str, np.ndarray] | None, tuple[str, ...], str]:
    """Labels by split, the names of the classes and a note in words; None where there is no such column."""
    where = f"data.table {data.table}"
    if not data.labels:
        return None, (), "no classes (data.labels False)"
    column = find_column(columns, data.label_column, LABEL_COLUMNS, "label_column", where)
    if column is None:
        return None, (), no_classes(columns, (file_column, SPLIT_COLUMN))
    values = {split: [columns[column][row] for row in of_split] for split, of_split in rows.items()}
    return classes_of(values, f"the column {column!r} of {where}")
