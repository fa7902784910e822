"""Settings to begin with, for pictures that were looked at: a rule of thumb, said in words and written as a
preset."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from vqprior.configs import Config, flatten
from vqprior.configs.commands import Check
from vqprior.configs.errors import UserError, command_line
from vqprior.configs.schema import Data, Stage2

from ..files import write_file
from ..processes import say
from . import DataSet, roots_of
from .source import one_line, printable

LONGEST = 32  # codes along a side of a map that one prior is asked to learn with no coarser map above it
WORTH_TWO = 16  # codes along the shorter side of a map, from which two maps did better (docs/results.md)


def suggestion(data: DataSet, config: Check, typed: dict[str, Any], *, grey: bool) -> dict[str, Any]:
    """Settings to begin with, by the names of their flags: a rule of thumb, from the number and size of the
    pictures, and whether all are `grey`. They fit what was `typed`, which is not among them."""
    looks = [look for split in data.record.splits.values() for look in split.looks]
    height, width = (int(np.median([getattr(look, axis) for look in looks])) for axis in ("height", "width"))
    if data.data.crop:
        height, width = min(height, data.data.crop), min(width, data.data.crop)
    count = len(data.train)
    most = 64 if count < 20_000 else 128 if count < 200_000 else 256
    scale = min(1.0, most / min(height, width))
    square = 0.8 <= height / width <= 1.25
    sides = [min(height, width)] * 2 if square else [height, width]
    exact, levels, factor = (typed.get(name) for name in ("data.size", "stage1.levels", "stage1.factor"))
    if any(name.startswith("stage2_fine.") for name in typed):  # which one level has no use for
        levels = config.stage1.levels
    wanted = exact or [side * scale for side in sides]
    maps = _maps(wanted, levels, factor, exact=exact is not None)
    if maps is None:
        maps = Maps(config.stage1.factor, config.stage1.levels, [*exact])
        say(_why_one_long_map(maps))
    factor, levels, size = maps
    usual_batch = min(64 if count < 20_000 else 128, max(1, 2 ** (count.bit_length() - 1)))
    batch = typed.get("stage2.batch_size", usual_batch)
    dropout = typed.get("stage2.dropout", 0.2 if count < 20_000 else 0.1)
    of_stage1 = typed.get("stage1.batch_size", usual_batch)
    longest = max(size) // (factor * 2 ** (levels - 1))  # side of the coarsest map
    fine = {
        "stage2_fine.batch_size": batch,
        "stage2_fine.steps": _steps(count, batch, passes=60),
        "stage2_fine.layers": _layers(16, config.stage2_fine),
        "stage2_fine.dropout": dropout,
    }
    suggested = {
        "data.size": size,
        "data.channels": 1 if grey else 3,
        "stage1.factor": factor,
        **({"stage1.levels": levels} if levels != 1 or config.stage1.levels > 1 else {}),
        "stage1.K": 128 if grey or count < 2_000 else 512,
        "stage1.batch_size": of_stage1,
        "stage1.steps": _steps(count, of_stage1, passes=40),
        "stage2.batch_size": batch,
        "stage2.steps": _steps(count, batch, passes=60),
        "stage2.layers": _layers(8 if longest <= 8 else 16 if longest <= 16 else 20, config.stage2),
        "stage2.dropout": dropout,
        **(fine if levels > 1 else {}),
        **({} if data.label_names or config.sample.guidance == 1 else {"sample.guidance": 1.0}),
    }
    if config.stage1.quantizer == "fsq":  # its levels say how many codes there are
        del suggested["stage1.K"]
    return {name: value for name, value in suggested.items() if name not in typed}


def _layers(usual: int, settings: Stage2) -> int:
    """As many layers as usual, and one for each block of PixelSNAIL at least."""
    return max(usual, settings.pixelsnail.blocks) if settings.prior == "pixelsnail" else usual


class Maps(NamedTuple):
    """What maps of codes the pictures of a size are to have."""

    factor: int
    levels: int
    size: list[int]


def _maps(
    sides: Sequence[float], levels: int | None = None, factor: int | None = None, *, exact: bool = False
) -> Maps | None:
    """The factor and the number of levels for pictures of these sides, and the nearest size that they divide;
    None where nothing divides sides that are `exact`.

    One level, of factor 4, where that makes fewer than WORTH_TWO codes on the shorter side and at most
    LONGEST on the other; else two, of a factor that leaves the coarsest at most LONGEST. Where no two divide
    exact sides one of such a factor, or two with the shortest coarsest map that there is. Levels and a factor
    that are given stay.
    """
    factors = [factor] if factor else [2**power for power in range(2, 11)]

    def fitting(count: int, factors: Sequence[int], longest: float = LONGEST) -> Iterator[Maps]:
        for of_codes in factors:
            coarsest = of_codes * 2 ** (count - 1)
            size = [*map(int, sides)] if exact else _divided(sides, coarsest)
            divides = all(side % coarsest == 0 for side in size)
            if divides and (factor or max(size) <= longest * coarsest):
                yield Maps(of_codes, count, size)

    if levels:
        return next(fitting(levels, factors), None) or max(fitting(levels, factors, inf), default=None)
    small = next(fitting(1, factors[:1]), None)
    if small and min(small.size) < WORTH_TWO * small.factor and max(small.size) <= LONGEST * small.factor:
        return small
    shortest = max(fitting(2, factors, inf), default=None)  # of exact sides, longer than one would like
    return next(fitting(2, factors), None) or next(fitting(1, factors), None) or shortest


def _divided(sides: Sequence[float], factor: int) -> list[int]:
    """The multiples of a factor nearest to these sides, and at least one of it."""
    return [max(factor, round(side / factor) * factor) for side in sides]


def which_maps(settings: dict[str, Any], usual: int) -> str:
    """In words, the maps of codes that are suggested, where they are several or not as many as `usual`."""
    size, factor, levels = (settings[name] for name in ("data.size", "stage1.factor", "stage1.levels"))
    *coarser, fine = (
        "x".join(str(side // (factor * 2**level)) for side in size) for level in reversed(range(levels))
    )
    if levels == 1:
        return f"one map of {fine} codes in place of {usual} levels: one prior learns it (docs/levels.md)"
    one = f" in place of one map of {fine}" if usual == 1 else ""
    return (
        f"{levels} levels of codes{one}: {' and '.join(coarser)} for what a picture is of, then {fine} for "
        "what it looks like (docs/levels.md)"
    )


def _why_one_long_map(maps: Maps) -> str:
    """In words, that no levels divide a size that was typed."""
    height, width = maps.size
    codes = f"{height // maps.factor}x{width // maps.factor}"
    below, above = (" ".join(str(max(8, side // 8 * 8) + more) for side in maps.size) for more in (0, 8))
    return (
        f"one map of {codes} codes is long for a prior, and no two levels divide {height}x{width} pixels; "
        f"--data.size {below} or {above} takes two"
    )


def _steps(count: int, batch: int, passes: int) -> int:
    """Steps of so many passes through the pictures, at least 2,000 and at most 100,000, in thousands."""
    return int(np.clip(round(count * passes / batch / 1000) * 1000, 2_000, 100_000))


def write_preset(path: Path, config: Check, used: Data, settings: dict[str, Any]) -> None:
    """A preset of these settings, on the same data, with all else that the configuration says."""
    plain, own = flatten(asdict(Config())), flatten(asdict(config.of_run()))
    kept = {name: value for name, value in own.items() if name != "out" and value != plain[name]}
    if settings.get("stage1.levels", config.stage1.levels) == 1:
        kept = {name: value for name, value in kept.items() if not name.startswith("stage2_fine.")}
    of_data = {"data.source": config.data.source, "data.root": config.data.root}
    if used.range != "auto":
        of_data["data.range"] = used.range
    tree: dict[str, Any] = {}
    for name, value in (of_data | kept | settings).items():
        *sections, field = name.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[field] = list(value) if isinstance(value, tuple) else value
    tree["precision"] = config.precision
    root, run = (one_line(printable(text)) for text in (roots_of(used), command_line("run", path)))
    head = f"# Written by `vqprior check` for the pictures of {root}.\n#\n#   {run}\n"
    text = head + yaml.safe_dump(tree, sort_keys=False)
    if path.exists():
        raise UserError(f"--write {path} is there already; give another name, or delete it")
    try:
        write_file(path, text)
    except OSError as error:
        raise UserError(f"--write {path} cannot be written ({error.strerror})") from error
