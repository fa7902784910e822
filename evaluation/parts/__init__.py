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

    Figures of classifiers of another recipe than today's are marked.
    """
    protocol = metrics.get("protocol", {})
    for part in PARTS.values():
        key = part.key_of_metrics
        if key in metrics:
            mark = mark_of(protocol.get("parts", {}).get(key, {}))
            marked = [table._replace(title=table.title + mark) for table in part.tables(metrics[key])]
            yield Shown(part.name, part.heading, marked)
    if "archives" in metrics:
        of_files = protocol.get("archives", {})
        rows = {file + mark_of(of_files.get(file, {})): row for file, row in metrics["archives"].items()}
        yield Shown("archives", archives.HEADING, archives.tables(rows))


def mark_of(settings: Settings) -> str:
    """Words behind what classifiers of another recipe measured: it compares with nothing of today's."""
    recipe = settings.get("recipe", RECIPE)
    return "" if recipe == RECIPE else f" (classifiers of recipe {recipe}, not {RECIPE})"
