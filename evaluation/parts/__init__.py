"""The parts of an evaluation, one file each; archives are parts too."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any, NamedTuple, get_args

from vqprior.configs import commands

from ..classifier import RECIPE
from ..part import Part, Settings
from ..tables import Table
from . import archives

Metrics = dict[str, Any]
"""What `metrics.json` holds: the figures of each part by its key, of archives, and how they were measured."""
PARTS: dict[str, Part] = {name: import_module(f"{__name__}.{name}").PART for name in get_args(commands.Part)}
"""By name. Each file defines its `PART`; the name in `configs.commands.Part` is what makes it known."""
MARK = " (other classifiers)"
MEANS = (
    "Other classifiers: another version of vqprior measured this, whose classifiers have another network or "
    "learn otherwise. It compares with nothing that this version measures; `vqprior evaluate` measures anew."
)


def tables(metrics: Metrics) -> list[Table]:
    """The tables of all parts that were measured."""
    return [table for part in shown(metrics) for table in part.tables]


class Shown(NamedTuple):
    """What is shown of a part that was measured."""

    name: str
    heading: str
    tables: list[Table]


def shown(metrics: Metrics) -> Iterator[Shown]:
    """What is shown of each part that was measured, and of the archives.

    Figures of classifiers of another recipe than today's are marked; below the first of them stands what that
    means.
    """
    protocol, said = metrics.get("protocol", {}), False
    for part in PARTS.values():
        key = part.key_of_metrics
        if key in metrics:
            other = is_of_other_classifiers(protocol.get("parts", {}).get(key, {}))
            marked = [_marked(table) if other else table for table in part.tables(metrics[key])]
            yield Shown(part.name, part.heading, _explained(marked) if other and not said else marked)
            said |= other
    if "archives" in metrics:
        of_files = protocol.get("archives", {})
        others = {file for file in metrics["archives"] if is_of_other_classifiers(of_files.get(file, {}))}
        rows = {file + MARK * (file in others): row for file, row in metrics["archives"].items()}
        of_archives = archives.tables(rows)
        yield Shown(
            "archives", archives.HEADING, _explained(of_archives) if others and not said else of_archives
        )


def is_of_other_classifiers(settings: Settings) -> bool:
    """Whether classifiers of another recipe measured it: it compares with nothing of today's."""
    return settings.get("recipe", RECIPE) != RECIPE


def _marked(table: Table) -> Table:
    return table._replace(title=table.title + MARK)


def _explained(tables: list[Table]) -> list[Table]:
    """The tables, with what the mark means below the first."""
    first, *others = tables
    return [first._replace(warning=" ".join(filter(None, (first.warning, MEANS)))), *others]
