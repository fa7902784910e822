"""A look at all pictures of a data set before any training: what is wrong and what is odd."""

import os
import shlex
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from vqprior.configs import as_flags
from vqprior.configs.commands import Check
from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data

from ..pictures import GREY, columns_of, grid, save_png
from ..processes import say
from ..run_dir import RunDir
from . import SPLITS, DataSet, blank, load
from .folder import refuse_among_pictures
from .record import Record, digest_of, some, with_reasons
from .resume import differing
from .source import counted
from .suggestion import suggestion, which_maps, write_preset

SHEET = 64  # pictures on the contact sheet
FEW = 20  # training pictures of a class, below which it is named
LEAST = {"train": 100, "validation": 10, "test": 10}  # pictures of a split, below which it is named
DARK = 64  # of 255, below which a value is nearly black
FOR_WHAT = {
    "train": "that is little to learn from",
    "validation": "the best checkpoint would be chosen by them",
    "test": "figures would be of them",
}


class Seen(NamedTuple):
    """One picture, prepared, in short."""

    digest: str  # of its pixels
    blank: bool
    grey: bool
    brightest: int  # value


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
    cores = os.cpu_count() or 1
    tolerant = replace(config.data, on_error="skip", memory_gb=0.0, cache=None, workers=cores)
    looks: dict[tuple[str, str], Seen] = {}

    def see(split: str, key: str, pixels: np.ndarray) -> None:
        looks[split, key] = _look(pixels)

    data = load(tolerant, quiet=False, see=see)
    say(data.summary())
    seen = {name: [looks[name, key] for key in data.split(name).keys] for name in SPLITS}
    grey = all(one.grey for all_of in seen.values() for one in all_of)
    settings = typed | suggestion(data, config, typed, grey=grey)
    changed = _changed(data, run)
    findings = [*_unreadable(data, config.data, changed), *_blank(data, seen), *_dark(seen)]
    findings += [*_duplicates(data, seen), *_sizes(data, *settings["data.size"]), *_classes(data)]
    findings += [*_few(data), *_batches(data, config, typed), *_of_run(run, config.data, changed)]
    for finding in findings:
        if not finding.stops:  # what does is said last, with what follows from it
            say(f"- {finding.text}")
    sheet = config.sheet_file
    shown = _write_sheet(data, sheet, mark=not config.sheet)
    say(f"check: {sheet} shows {counted(shown, 'training picture')} as the networks would see them")
    if "stage1.levels" not in typed and "stage1.levels" in settings and not RunDir(run).has_begun:
        say(which_maps(settings, config.stage1.levels))
    if config.write:
        write_preset(Path(config.write), config, data.data, settings)
        say(f"check: {config.write} has settings to begin with: {shlex.join(as_flags(settings))}")
    if stopping := [finding.text for finding in findings if finding.stops]:
        raise UserError("training cannot begin with these data: " + "; ".join(stopping))
    say("check: training may begin")
    return settings


def _look(pixels: np.ndarray) -> Seen:
    """A look at a prepared picture, uint8 [C, H + m, W + m]."""
    grey = len(pixels) == 1 or bool((pixels[0] == pixels[1]).all() and (pixels[0] == pixels[2]).all())
    return Seen(digest_of(pixels), blank(pixels), grey, int(pixels.max()))


def _named(data: DataSet, name: str, indices: Sequence[int]) -> list[str]:
    split = data.split(name)
    return [split.pictures.reader.where(int(split.indices[index])) for index in indices]


def _unreadable(data: DataSet, wanted: Data, changed: dict[tuple[str, str], str]) -> list[Finding]:
    """Pictures that cannot be read, but for those of a run, of which `_of_run` speaks."""
    pictures = [
        (f"{split}: {key}", why)
        for split, reasons in data.record.unreadable.items()
        for key, why in reasons.items()
        if (split, key) not in changed
    ]
    if not pictures:
        return []
    advice = (
        "" if wanted.on_error == "skip" else "; fix or remove them, or go on without: --data.on_error skip"
    )
    text = f"{counted(len(pictures), 'picture')} cannot be read: {with_reasons(pictures)}{advice}"
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
    text = f"{counted(len(blanks), 'picture')} of one colour, or all black or white: {some(blanks)}{advice}"
    return [Finding(most, text)]


def _dark(seen: dict[str, list[Seen]]) -> list[Finding]:
    """Pictures that are nearly black, as masks, or 12 bits stored in 16 of which the upper 8 are read."""
    brightest = max(one.brightest for all_of in seen.values() for one in all_of)
    text = (
        f"no picture has a pixel above {brightest} of 255, so all are nearly black: spread their values first"
    )
    return [Finding(False, text)] if 0 < brightest < DARK else []


def _duplicates(data: DataSet, seen: dict[str, list[Seen]]) -> list[Finding]:
    places: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, all_of in seen.items():
        for index, one in enumerate(all_of):
            if not one.blank:
                places[one.digest].append((name, index))
    groups = [group for group in places.values() if len(group) > 1]
    within = [group for group in groups if len({name for name, _ in group}) == 1]
    across = [group for group in groups if len({name for name, _ in group}) > 1]
    numbers = {name: data.split(name).numbers for name in SPLITS} if data.label_names else {}
    findings = []
    for repeated, words in (
        (within, "within a split"),
        (across, "in several splits, where figures then flatter"),
    ):
        if repeated:
            shown = [" = ".join(_named(data, name, [i])[0] for name, i in group[:3]) for group in repeated]
            torn = sum(len({int(numbers[name][i]) for name, i in group if numbers}) > 1 for group in repeated)
            classes = f" ({torn:,} of them in several classes)" if torn else ""
            pictures = counted(len(repeated), "picture")
            text = f"{pictures} there more than once {words}{classes}: {some(shown, 5)}"
            findings.append(Finding(False, text))
    return findings


def _changed(data: DataSet, run: Path) -> dict[tuple[str, str], str]:
    """Pictures that a run began with and that are others now: why, by split of the source and name."""
    record = Record.read(run)
    changed = {}
    for listed in record.splits.values() if record else ():
        pictures = getattr(data.source, listed.origin)
        if pictures is not None:
            names = (record.label_names, data.source.label_names)
            reasons = differing(listed, names[0], pictures, names[1], workers=data.data.workers)[1]
            changed |= {(listed.origin, listed.keys[place]): reason for place, reason in reasons.items()}
    return changed


def _of_run(run: Path, wanted: Data, changed: dict[tuple[str, str], str]) -> list[Finding]:
    if not changed:
        return []
    others = [(key, reason) for (_, key), reason in changed.items()]
    new = "for a new run give another folder: --out runs/NAME"
    count = counted(len(others), "picture")
    text = f"{count} of those that {run} began with changed: {with_reasons(others)}; {new}"
    return [Finding(wanted.on_error == "stop", text)]


def _sizes(data: DataSet, height: int, width: int) -> list[Finding]:
    """Pictures smaller than those that are learnt from."""
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
    text = f"{counted(len(small), 'picture')} smaller than {width}x{height}, to be enlarged: {some(small, 5)}"
    return [Finding(False, text)]


def _classes(data: DataSet) -> list[Finding]:
    if not data.label_names:
        return []
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in data.label_names:
        alike[unicodedata.normalize("NFKC", name).casefold().strip()].append(name)
    groups = [" = ".join(map(repr, names)) for names in alike.values() if len(names) > 1]
    found = f"names of classes differ by case, spaces or spelling of one letter alone: {some(groups)}"
    counts = Counter(data.train.numbers.tolist())
    few = [
        f"{name} ({counts[number]})" for number, name in enumerate(data.label_names) if counts[number] < FEW
    ]
    scarce = f"{counted(len(few), 'class')} with fewer than {FEW} training pictures: {some(few)}"
    if len(few) == len(data.label_names):
        scarce += "; to learn from all as one: --data.labels False"
    return [Finding(False, text) for text, those in ((found, groups), (scarce, few)) if those]


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


def _write_sheet(data: DataSet, path: Path, *, mark: bool) -> int:
    """Training pictures, spread evenly; in a column a class where there are up to sixteen. How many."""
    labels, classes, columns = data.train.labels, len(data.label_names), columns_of(0)
    if labels is not None and 2 <= classes <= 16:
        rows = max(1, SHEET // classes)
        by_class = [np.flatnonzero(labels.numpy() == number)[:rows].tolist() for number in range(classes)]
        by_class = [of for of in by_class if of]
        # -1 is an empty cell below a class of fewer pictures
        cells = [index for row in zip_longest(*by_class, fillvalue=-1) for index in row]
        columns = columns_of(len(by_class))
    else:
        cells = np.unique(np.linspace(0, len(data.train) - 1, SHEET).astype(int)).tolist()
    cells = torch.tensor(cells)
    filled = cells >= 0
    images = data.train.images(cells[filled])
    sheet = images.new_full((len(cells), *images.shape[1:]), GREY)
    sheet[filled] = images
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if mark:  # so that the sheet is never taken for data
            (path.parent / ".vqprior").touch()
        save_png(path, grid(sheet, columns))
    except OSError as error:
        raise UserError(
            f"the contact sheet {path} cannot be written ({error.strerror}); give --sheet FILE"
        ) from error
    return len(images)
