"""A look at all pictures of a data set before any training: what is wrong, what is odd, and what to begin
with."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml

from vqprior.configs import Config, as_flags, flatten
from vqprior.configs.commands import Check
from vqprior.configs.errors import UserError, command_line
from vqprior.configs.schema import Data, Stage2

from ..files import write_file
from ..pictures import grid, save_png
from ..processes import say
from ..run_dir import RunDir
from . import SPLITS, DataSet, blank, load, roots_of
from .decode import Unreadable
from .folder import refuse_among_pictures
from .record import Record, digest_of, some
from .resume import differing
from .threads import in_threads

SHEET = 64  # pictures on the contact sheet
FEW = 20  # training pictures of a class, below which it is named
LEAST = {"train": 100, "validation": 10, "test": 10}  # pictures of a split, below which it is named
FOR_WHAT = {
    "train": "that is little to learn from",
    "validation": "the best checkpoint would be chosen by them",
    "test": "figures would be of them",
}
LONGEST = 32  # codes along a side of a map that one prior is asked to learn with no coarser map above it
WORTH_TWO = 16  # codes along the shorter side of a map, from which two maps did better (docs/results.md)


class Seen(NamedTuple):
    """One picture, prepared, in short."""

    digest: str  # of its pixels
    blank: bool
    grey: bool
    reason: str = ""  # why it could not be read


@dataclass(frozen=True)
class Finding:
    """Something to know of the data."""

    stops: bool  # whether training cannot begin
    text: str


def check(config: Check, typed: dict[str, Any]) -> dict[str, Any]:
    """Look at all pictures and say what was found; write the contact sheet and, if asked for, a preset.

    Args:
        typed: settings that the user gave, by the names of their flags: they stay as they are.

    Returns:
        Settings to begin with, by the names of their flags: those, and what is suggested beside them.

    Raises:
        UserError: training cannot begin with these data; the message lists why.
    """
    run = Path(config.out)
    refuse_among_pictures(config.sheet_file.parent, config.data, "--sheet" if config.sheet else "--out")
    # All that cannot be read is to be found, not only the first; nothing is held, and nothing of a run is
    # changed
    tolerant = replace(config.data, on_error="skip", memory_gb=0.0, cache=None)
    data = load(tolerant, quiet=False)
    say(data.summary())
    seen = {name: _look(data, name) for name in SPLITS}
    findings = [*_unreadable(data, seen, config.data), *_blank(data, seen), *_duplicates(data, seen)]
    findings += [*_sizes(data), *_classes(data), *_few(data), *_batches(data, config, typed)]
    findings += _changed(data, run, config.data)
    for finding in findings:
        say(f"{'!' if finding.stops else '-'} {finding.text}")
    sheet = config.sheet_file
    _write_sheet(data, seen, sheet, mark=not config.sheet)
    say(f"check: {sheet} shows {min(SHEET, len(data.train))} of the pictures as the networks would see them")
    settings = typed | suggestion(data, seen, config, typed)
    if "stage1.levels" not in typed and "stage1.levels" in settings and not RunDir(run).has_begun:
        say(_which_maps(settings, config.stage1.levels))
    if config.write:
        _write_preset(Path(config.write), config, data.data, settings)
        say(f"check: {config.write} has settings to begin with: {' '.join(as_flags(settings))}")
    if stopping := [finding.text for finding in findings if finding.stops]:
        raise UserError("training cannot begin with these data: " + "; ".join(stopping))
    say("check: training may begin")
    return settings


def _look(data: DataSet, name: str) -> list[Seen]:
    """All pictures of a split, decoded and prepared, on all cores."""
    split = data.split(name)

    def one(index: int) -> Seen:
        try:
            pixels = split.decoded(index)
        except Unreadable as error:
            return Seen("", False, False, error.reason)
        grey = len(pixels) == 1 or bool((pixels[0] == pixels[1]).all() and (pixels[0] == pixels[2]).all())
        return Seen(digest_of(pixels), blank(pixels), grey)

    return [*in_threads(one, len(split), os.cpu_count() or 1, name=f"check {name}", quiet=False)]


def _named(data: DataSet, name: str, indices: Sequence[int]) -> list[str]:
    split = data.split(name)
    return [split.pictures.reader.where(int(split.indices[index])) for index in indices]


def _unreadable(data: DataSet, seen: dict[str, list[Seen]], wanted: Data) -> list[Finding]:
    unreadable = data.record.unreadable
    pictures = [
        f"{split}: {key} ({why})" for split, reasons in unreadable.items() for key, why in reasons.items()
    ]
    for name, all_of in seen.items():
        bad = [index for index, one in enumerate(all_of) if one.reason]
        places = _named(data, name, bad)
        pictures += [f"{place} ({all_of[index].reason})" for place, index in zip(places, bad, strict=True)]
    if not pictures:
        return []
    advice = (
        "" if wanted.on_error == "skip" else "; fix or remove them, or go on without: --data.on_error skip"
    )
    text = f"{len(pictures):,} pictures cannot be read: {some(pictures)}{advice}"
    return [Finding(wanted.on_error == "stop", text)]


def _blank(data: DataSet, seen: dict[str, list[Seen]]) -> list[Finding]:
    blanks = [
        place
        for name in SPLITS
        for place in _named(data, name, [i for i, s in enumerate(seen[name]) if s.blank])
    ]
    if not blanks:
        return []
    most = len(blanks) > sum(map(len, seen.values())) / 2
    advice = (
        "; most of them, so their range is not what data.range says: give --data.range LOW HIGH"
        if most
        else ""
    )
    return [
        Finding(
            most, f"{len(blanks):,} pictures are of one colour, or all black or white: {some(blanks)}{advice}"
        )
    ]


def _duplicates(data: DataSet, seen: dict[str, list[Seen]]) -> list[Finding]:
    places: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, all_of in seen.items():
        for index, one in enumerate(all_of):
            if one.digest and not one.blank:
                places[one.digest].append((name, index))
    groups = [group for group in places.values() if len(group) > 1]
    within = [group for group in groups if len({name for name, _ in group}) == 1]
    across = [group for group in groups if len({name for name, _ in group}) > 1]
    findings = []
    for repeated, words in (
        (within, "within a split"),
        (across, "in several splits, where figures then flatter"),
    ):
        if repeated:
            shown = [" = ".join(_named(data, name, [i])[0] for name, i in group[:3]) for group in repeated]
            findings.append(
                Finding(
                    False,
                    f"{len(repeated):,} pictures are there more than once {words}: {some(shown, 5)}",
                )
            )
    return findings


def _changed(data: DataSet, run: Path, wanted: Data) -> list[Finding]:
    """Pictures that a run began with and that are others now."""
    record = Record.read(run)
    others = []
    for listed in record.splits.values() if record else ():
        pictures = getattr(data.source, listed.origin)
        if pictures is not None:
            names = (record.label_names, data.source.label_names)
            reasons = differing(listed, names[0], pictures, names[1], workers=data.data.workers)[1]
            others += [f"{listed.keys[place]} ({reason})" for place, reason in reasons.items()]
    if not others:
        return []
    new = "for a new run give another folder: --out runs/NAME"
    text = f"{len(others):,} pictures that {run} began with are others now: {some(others)}; {new}"
    return [Finding(wanted.on_error == "stop", text)]


def _sizes(data: DataSet) -> list[Finding]:
    height, width = data.data.size
    looks = [
        (key, look)
        for split in data.record.splits.values()
        for key, look in zip(split.keys, split.looks, strict=True)
    ]
    small = [
        f"{key} ({look.width}x{look.height})"
        for key, look in looks
        if look.width < width or look.height < height
    ]
    if not small:
        return []
    return [
        Finding(
            False,
            f"{len(small):,} pictures are smaller than data.size and would be enlarged: {some(small, 5)}",
        )
    ]


def _classes(data: DataSet) -> list[Finding]:
    if not data.label_names:
        return []
    counts = Counter(data.train.numbers.tolist())
    few = [
        f"{name} ({counts[number]})" for number, name in enumerate(data.label_names) if counts[number] < FEW
    ]
    return (
        [Finding(False, f"{len(few):,} classes have fewer than {FEW} training pictures: {some(few)}")]
        if few
        else []
    )


def _few(data: DataSet) -> list[Finding]:
    """Splits of so few pictures that what follows from them says little."""
    counts = {name: len(data.split(name)) for name in SPLITS}
    few = [name for name in SPLITS if counts[name] < LEAST[name]]
    words = [f"{name}: {counts[name]:,} ({FOR_WHAT[name]})" for name in few]
    return [Finding(False, f"few pictures: {'; '.join(words)}")] if few else []


def _batches(data: DataSet, config: Check, typed: dict[str, Any]) -> list[Finding]:
    """Batches that were asked for and have pictures more than once."""
    sizes = {f"stage{n}.batch_size": of.batch_size for n, of in ((1, config.stage1), (2, config.stage2))}
    large = [f"{name} {size}" for name, size in sizes.items() if name in typed and size > len(data.train)]
    text = f"of {len(data.train):,} training pictures a batch has some more than once: {', '.join(large)}"
    return [Finding(False, text)] if large else []


def _write_sheet(data: DataSet, seen: dict[str, list[Seen]], path: Path, *, mark: bool) -> None:
    """Training pictures, spread evenly; in a column a class where there are up to sixteen."""
    sound = np.array([index for index, one in enumerate(seen["train"]) if not one.reason])
    labels, classes, columns = data.train.labels, len(data.label_names), 8
    if labels is not None and 2 <= classes <= 16:
        columns = classes
        rows = max(1, SHEET // classes)
        by_class = [sound[labels[sound].numpy() == number][:rows] for number in range(classes)]
        shown = [int(of[row % len(of)]) for row in range(rows) for of in by_class if len(of)]
        columns = sum(len(of) > 0 for of in by_class)
    else:
        shown = sound[np.unique(np.linspace(0, len(sound) - 1, SHEET).astype(int))].tolist()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if mark:  # so that the sheet is never taken for data
            (path.parent / ".vqprior").touch()
        save_png(path, grid(data.train.images(torch.tensor(shown)), columns))
    except OSError as error:
        raise UserError(
            f"the contact sheet {path} cannot be written ({error.strerror}); give --sheet FILE"
        ) from error


def suggestion(
    data: DataSet, seen: dict[str, list[Seen]], config: Check, typed: dict[str, Any]
) -> dict[str, Any]:
    """Settings to begin with, by the names of their flags: a rule of thumb, from the number and size of the
    pictures. They fit what was `typed`, which is not among them."""
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
    grey = all(one.grey for all_of in seen.values() for one in all_of if not one.reason)
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


def _which_maps(settings: dict[str, Any], usual: int) -> str:
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


def _write_preset(path: Path, config: Check, used: Data, settings: dict[str, Any]) -> None:
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
    run = command_line("run", path)
    head = f"# Written by `vqprior check` for the pictures of {roots_of(used)}.\n#\n#   {run}\n"
    text = head + yaml.safe_dump(tree, sort_keys=False)
    if path.exists():
        raise UserError(f"--write {path} is there already; give another name, or delete it")
    try:
        write_file(path, text)
    except OSError as error:
        raise UserError(f"--write {path} cannot be written ({error.strerror})") from error
