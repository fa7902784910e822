"""A table of pictures, CSV, Parquet or JSON lines: a row for each, its file and, if wanted, label and split.

file,label,split            {"file_name": "a/1.jpg", "label": "cat", "split": "train"}
a/1.jpg,cat,train           {"file_name": "a/2.jpg", "label": "dog", "split": "test"}
a/2.jpg,dog,test
"""

import csv
import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data

from .labels import classes_of
from .picture_files import ENDINGS, FileReader
from .source import Pictures, Source, counted, in_words, printable
from .splits import all_words, in_order, split_of

FILE_COLUMNS = ("file", "filename", "file_name", "image", "path")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "cls")
SPLIT_COLUMN = "split"
DELIMITERS = ",;\t"

Columns = dict[str, list[Any]]


def load_table(data: Data) -> Source:
    """The pictures that data.table lists; files are relative to data.root.

    Raises:
        UserError: the table cannot be read, lists missing files or one twice, or has unknown words of splits.
    """
    table = Path(data.table)
    columns = _read(table)
    file_column = find_column(columns, data.image_column, FILE_COLUMNS, "image_column", f"data.table {table}")
    if file_column is None:
        raise UserError(
            f"data.table {table} has the columns {', '.join(columns)}, and none of "
            f"{', '.join(FILE_COLUMNS)}: name the one with the files, --data.image_column COLUMN"
        )
    names = _names(columns[file_column], table)
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
    seen = f"the table {table}, its column {file_column!r}" + (
        " and its splits" if SPLIT_COLUMN in columns else ""
    )
    if outside := [name for name in names if _is_outside(name, data.root)]:
        seen += f", files outside data.root among them ({in_words([*map(printable, outside)])})"
    layout = f"{seen}; {note}"
    return Source(parts["train"], parts.get("test"), label_names, parts.get("validation"), layout)


def find_column(
    columns: Iterable[str],
    given: str | None,
    usual: Sequence[str],
    setting: str,
    where: str,
) -> str | None:
    """The column that a setting names, else the first with a usual name, in any case; None without.

    Raises:
        UserError: the one that the setting names is not there.
    """
    there = list(columns)
    if given is not None:
        if given not in there:
            raise UserError(
                f"data.{setting} is {given!r}, and {where} has the columns {', '.join(there)}: "
                f"name one of these, --data.{setting} COLUMN"
            )
        return given
    lower = {column.lower(): column for column in reversed(there)}
    return next((lower[name] for name in usual if name in lower), None)


def no_classes(columns: Iterable[str], taken: Iterable[str | None]) -> str:
    """That no column has labels, and which other ones could be named."""
    others = [name for name in columns if name not in taken]
    hint = f"; if one of {in_words(others)} has them, --data.label_column COLUMN" if others else ""
    return f"no column of labels ({', '.join(LABEL_COLUMNS)}), so no classes{hint}"


def _read(table: Path) -> Columns:
    """The columns of a table, lower-case `split` among them where it has that column in any case."""
    if not table.is_file():
        raise UserError(
            f"data.table is {str(table)!r}, which is not a file. Give a CSV, Parquet or JSON-lines file: "
            "--data.table FILE.csv"
        )
    columns = READERS.get(table.suffix.lower(), _read_csv)(table)
    if not columns or not next(iter(columns.values())):
        raise UserError(f"data.table {table} has no rows; it takes a row of names, then one for each picture")
    split = find_column(columns, None, (SPLIT_COLUMN,), "", "")
    return {SPLIT_COLUMN if name == split else name: values for name, values in columns.items()}


def _read_csv(table: Path) -> Columns:
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            lines = [*file]
        if any("\0" in line for line in lines):
            raise csv.Error("it holds zero bytes, as UTF-16 does")
        head = next((line for line in lines if line.strip()), "")
        said = re.fullmatch(r'"?sep=(.)"?\s*', head, re.IGNORECASE)  # by Excel, in a line before the names
        delimiter = said[1] if said else max(DELIMITERS, key=head.count)
        reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
        filled = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"data.table {table} cannot be read as CSV in UTF-8 ({error}); save it as that"
        ) from error
    (_, names), *rows = filled[1 if said else 0 :] or [(0, [])]
    names = [name.strip() for name in names]
    if len(set(names)) < len(names):
        raise UserError(f"data.table {table} has two columns of one name ({', '.join(names)}); rename one")
    if uneven := [line for line, row in rows if len(row) != len(names)]:
        raise UserError(
            f"data.table {table} has {len(names)} columns and {counted(len(uneven), 'row')} of other length, "
            f"the first in line {uneven[0]}: put quotes around values with a comma in them"
        )
    columns = {name: [row[place].strip() for _, row in rows] for place, name in enumerate(names)}
    return {name: _as_numbers(values) for name, values in columns.items()}


def _as_numbers(values: list[str]) -> list[Any]:
    """Whole numbers where all values are such, so that class 10 comes after class 9."""
    try:
        numbers = [int(value) if value else None for value in values]
    except ValueError:
        return values
    same = all(number is None or str(number) == value for number, value in zip(numbers, values, strict=True))
    return numbers if same else values


def _read_parquet(table: Path) -> Columns:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UserError(
            "a Parquet table is read through the package pyarrow: pip install 'vqprior[data]'"
        ) from error
    try:
        return pq.read_table(table).to_pydict()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"data.table {table} cannot be read as Parquet ({error})") from error


def _read_json_lines(table: Path) -> Columns:
    """The columns of all rows; a value that a row lacks is None."""
    with open(table, "rb") as file:
        rows = [_json_row(line, number, table) for number, line in enumerate(file, 1) if line.strip()]
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(chain.from_iterable(rows))}


def _json_row(line: bytes, number: int, table: Path) -> dict[str, Any]:
    try:
        row = json.loads(line)
        problem = "" if isinstance(row, dict) else "it is no object"
    except json.JSONDecodeError as error:
        problem = f"{error.msg} at character {error.pos + 1}"
    except UnicodeDecodeError as error:
        problem = str(error)
    if problem:
        raise UserError(
            f"line {number:,} of data.table {table} cannot be read as JSON ({problem}); each line takes one "
            'object, as {"file": "a/1.jpg", "label": "cat"}'
        )
    return row


READERS = {".parquet": _read_parquet, ".jsonl": _read_json_lines}  # by ending; all others are CSV


def _names(files: Sequence[Any], table: Path) -> list[str]:
    """The files, in one spelling each."""
    if empty := [row for row, file in enumerate(files) if file is None or file == "" or "\0" in str(file)]:
        raise UserError(
            f"data.table {table} names no file in {counted(len(empty), 'row')}, the first at picture "
            f"{empty[0] + 1}"
        )
    names = [os.path.normpath(str(file)) for file in files]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(
            f"data.table {table} lists {counted(len(twice), 'file')} more than once: {in_words(twice)}; "
            "leave one row of each"
        )
    return names


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
    others = [first.replace("\\", "/"), *(first + ending for ending in sorted(ENDINGS))]
    if there := [name for name in others if os.path.isfile(os.path.join(data.root, name))]:
        return f"There is {there[0]}: write names in the table as the files have them, with / between folders"
    folders = (Path(), table.parent, *_folders_in(table.parent), *_folders_in(Path(data.root)))
    root = next((str(folder) for folder in folders if (folder / first).is_file()), "FOLDER")
    return f"Give the folder that they are relative to: {shlex.join(('--data.root', root))}"


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
