"""The parts of an evaluation, one file each; archives are parts too."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any, NamedTuple, get_args

from vqprior.configs import commands

from ..part import Part
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
    """What is shown of each part that was measured, and of the archives."""
    for part in PARTS.values():
        if part.key_of_metrics in metrics:
            yield Shown(part.name, part.heading, part.tables(metrics[part.key_of_metrics]))
    if "archives" in metrics:
        yield Shown("archives", archives.HEADING, archives.tables(metrics["archives"]))
