"""Figures as tables, from which both the text that `evaluate` prints and the page of `report` are made.

What is shown of figures is a template such as "{mse:.5f}"; a figure that is not there, such as one that
another version did not measure, is a dash.
"""

from collections.abc import Callable, Iterable, Mapping
from string import Formatter
from textwrap import wrap
from typing import Any, NamedTuple

Figures = dict[str, Any]
"""Numbers by name, some of them one level down, as they stand in `metrics.json`."""
Template = str | Callable[[Figures], str]
"""What is shown of figures: their names in braces, or a function of them."""
NAME = 44  # of text: characters of a row's name, at most where there are columns
LINE = 100  # characters of a line of prose


class Row(NamedTuple):
    """One line of a list of figures, or one tile of the page."""

    name: str
    value: Template
    only_with: str = ""  # the figure without which there is no such line


class Column(NamedTuple):
    """One column of a table whose rows are all alike."""

    heading: Template  # of the figures of the whole table
    cell: Template  # of the figures of a row


class Table(NamedTuple):
    """A table whose cells are text already."""

    title: str
    rows: list[tuple[str, list[str]]]  # names and cells
    columns: tuple[str, ...] = ()  # headings; none where each row has one cell
    note: str = ""  # which the page says below it
    pictures: tuple[tuple[str, str], ...] = ()  # which the page shows: files in RUN/evaluation, what they are
    warning: str = ""  # which text and page say below it


class _Dashes(Formatter):
    """`str.format`, with a dash for what is missing."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        try:
            return super().get_field(field_name, args, kwargs)
        except (KeyError, IndexError, TypeError):
            return None, field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        return "-" if value is None else super().format_field(value, format_spec)


def filled(template: Template, figures: Figures) -> str:
    """A template with the figures that it names."""
    return template(figures) if callable(template) else _Dashes().vformat(template, (), figures)


def given(rows: Iterable[Row], figures: Figures) -> list[Row]:
    """The rows that these figures have."""
    return [row for row in rows if not row.only_with or row.only_with in figures]


def list_table(title: str, rows: Iterable[Row], figures: Figures, **more: Any) -> Table:
    """A table with one figure a row; `more` is a note, or pictures."""
    cells = [(row.name, [filled(row.value, figures)]) for row in given(rows, figures)]
    return Table(filled(title, figures), cells, **more)


def column_table(
    title: str,
    columns: Iterable[Column],
    rows: Mapping[str, Figures],
    figures: Figures,
    *,
    note: str = "",
    warning: str = "",
) -> Table:
    """A table with the same figures in each row.

    Args:
        rows: their figures, by their names.
        figures: those of the whole, which title and headings name.
    """
    headings = tuple(filled(column.heading, figures) for column in columns)
    cells = [(name, [filled(column.cell, of_row) for column in columns]) for name, of_row in rows.items()]
    return Table(filled(title, figures), cells, headings, filled(note, figures), warning=warning)


def text(tables: Iterable[Table]) -> str:
    """The tables, one below the other."""
    return "\n\n".join(map(_text, tables))


def _text(table: Table) -> str:
    lines = [table.title, "-" * len(table.title)]
    if table.columns:
        rows = [["", *table.columns], *([name[-NAME:], *cells] for name, cells in table.rows)]  # a path's end
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines += (f"  {name:<{widths[0]}}{_cells(cells, widths[1:])}" for name, *cells in rows)
    else:
        lines += (f"  {name:<{NAME}}{cell}".rstrip() for name, [cell] in table.rows)
    return "\n".join([*lines, *wrap(table.warning, LINE, initial_indent="  ", subsequent_indent="  ")])


def markdown(tables: Iterable[Table]) -> str:
    """The tables, one below the other, as Markdown."""
    return "\n\n".join(map(_markdown, tables))


def _markdown(table: Table) -> str:
    headings = [*table.columns] or [""]
    rows = [["", *headings], ["---"] * (1 + len(headings)), *([name, *cells] for name, cells in table.rows)]
    lines = (f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in rows)
    below = [words for words in (table.note, table.warning) if words]
    return "\n\n".join([f"**{table.title}**", "\n".join(lines), *below])


def _cells(cells: Iterable[str], widths: Iterable[int]) -> str:
    """The cells of a line, each at the right of its column, two spaces between."""
    return "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
