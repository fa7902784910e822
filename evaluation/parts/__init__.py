"""The parts of an evaluation, one file each; archives are parts too."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any, get_args

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
    return [table for _, _, of_part in shown(metrics) for table in of_part]


def shown(metrics: Metrics) -> Iterator[tuple[str, str, list[Table]]]:
    """Name, heading and tables of each part that was measured, and of the archives."""
    for part in PARTS.values():
        if part.key_of_metrics in metrics:
            yield part.name, part.heading, part.tables(metrics[part.key_of_metrics])
    if "archives" in metrics:
        yield "archives", archives.HEADING, archives.tables(metrics["archives"])
