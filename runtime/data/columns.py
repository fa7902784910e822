"""Tables in files, CSV, Parquet or JSON, as their columns."""

import csv
import json
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from vqprior.configs.errors import UserError

from .source import counted, in_words

LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "cls")
SPLIT_COLUMN = "split"
DELIMITERS = ",;\t"

Columns = dict[str, list[Any]]


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


def read_table(table: Path) -> Columns:
    """The columns of a table, lower-case `split` among them where it has that column in any case."""
    if not table.is_file():
        raise UserError(
            f"data.table is {str(table)!r}, which is not a file. Give a CSV, Parquet or JSON-lines file: "
            "--data.table FILE.csv; or the name of those in the folders of splits: --data.table metadata.csv"
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
    return _columns_of(rows)


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


def _read_json(table: Path) -> Columns:
    """The columns of a list of objects, or of JSON lines, which programs call .json too.

    Raises:
        UserError: it is damaged, or one object, as of COCO or of pandas.
    """
    content = table.read_bytes()
    try:
        rows = json.loads(content)
    except ValueError as error:
        if not content.lstrip().startswith(b"["):
            return _read_json_lines(table)
        raise UserError(f"data.table {table} cannot be read as JSON ({error})") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(
            f"data.table {table} is no list of objects; it takes one for each picture, as "
            '[{"file": "a/1.jpg", "label": "cat"}]'
        )
    return _columns_of(rows)


def _columns_of(rows: Sequence[dict[str, Any]]) -> Columns:
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(chain.from_iterable(rows))}


READERS = {".parquet": _read_parquet, ".json": _read_json}  # by ending; all others are CSV
READERS |= dict.fromkeys((".jsonl", ".ndjson"), _read_json_lines)
