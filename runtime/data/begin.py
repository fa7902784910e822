"""The beginning of a run: one look at every picture, the splits, and the range of pictures of more than 8
bits."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data

from ..randomness import share_of
from . import value_range
from .decode import Unreadable
from .prepared import Prepared
from .record import Listed, Look, Record, look, with_reasons
from .source import SPLITS, Pictures, Source, counted
from .split import Split, decoded
from .threads import in_threads

See = Callable[[str, str, np.ndarray], None]
"""What looks at pictures as they are met: at their split, name and pixels, in any order and any thread."""


def survey(source: Source, data: Data, *, quiet: bool) -> Record:
    """One look at every picture, and the splits: those given, and the others cut from train.

    Raises:
        UserError: pictures cannot be read, and data.on_error is `stop`; or a split is empty.
    """
    given = {name: pictures for name in SPLITS if (pictures := getattr(source, name)) is not None}
    looks = {name: _looks(pictures, data, quiet) for name, pictures in given.items()}
    unreadable = {
        name: {given[name].keys[index]: seen.reason for index, seen in enumerate(of_split) if seen.reason}
        for name, of_split in looks.items()
    }
    bad = [
        (given[name].reader.where(index), seen.reason)
        for name, of_split in looks.items()
        for index, seen in enumerate(of_split)
        if seen.reason
    ]
    if bad and data.on_error == "stop":
        raise UserError(
            f"{len(bad):,} of {counted(sum(map(len, given.values())), 'picture')} cannot be read: "
            f"{with_reasons(bad)}. "
            "Fix them or move them away (`vqprior check` decodes all, and finds more), or go on without "
            "them: --data.on_error skip"
        )
    cut = _cut(source, data)
    splits = {}
    for name in SPLITS:
        origin = name if name in given else "train"
        indices = cut[name] if origin == "train" else range(len(given[origin]))
        sound = [index for index in indices if not looks[origin][index].reason]
        splits[name] = _listed(origin, given[origin], sound, looks[origin])
        if len(indices) and not sound:
            raise UserError(
                f"no picture of the {name} split can be read: {with_reasons(bad)}; fix or remove them"
            )
        if not sound:
            raise UserError(
                f"of {counted(len(source.train), 'picture')} none falls into the {name} split; add pictures, "
                f"{_that_fill(source, data)}"
            )
    return Record(splits, list(source.label_names), source.layout, dict(source.left_out), unreadable)


def _that_fill(source: Source, data: Data) -> str:
    """What to type for few pictures, so that no split is empty."""
    cut = [name for name in SPLITS if name == "train" or getattr(source, name) is None]
    for share in (0.1, 0.2, 0.3, 0.4):
        parts = _cut(source, replace(data, validation=share, test=share))
        if all(parts[name] for name in cut):
            flags = " ".join(f"--data.{name} {share}" for name in cut[1:])
            return f"or cut {'other shares' if len(cut) > 2 else 'another share'}: {flags}"
    return "or give pictures of their own for validation and test"


def _looks(pictures: Pictures, data: Data, quiet: bool) -> list[Look]:
    return [
        *in_threads(
            lambda index: look(pictures, index), len(pictures), data.workers, name="look", quiet=quiet
        )
    ]


def _cut(source: Source, data: Data) -> dict[str, list[int]]:
    """The training pictures in three parts, by a hash of their names; a part is empty where its split is
    given."""
    shares = np.array([share_of(key) for key in source.train.keys])
    test = 0.0 if source.test is not None else data.test
    validation = test + (0.0 if source.validation is not None else data.validation)
    return {
        "train": np.flatnonzero(shares >= validation).tolist(),
        "validation": np.flatnonzero((shares >= test) & (shares < validation)).tolist(),
        "test": np.flatnonzero(shares < test).tolist(),
    }


def _listed(origin: str, pictures: Pictures, indices: list[int], looks: list[Look]) -> Listed:
    labels = None if pictures.labels is None else pictures.labels[indices].tolist()
    return Listed(origin, [pictures.keys[i] for i in indices], labels, [looks[i] for i in indices])


def with_range(record: Record, source: Source, data: Data, *, quiet: bool) -> Record:
    """The record with the range of pictures of more than 8 bits: as it is set, else measured over the whole
    set."""
    wide: list[tuple[Pictures, int]] = []
    for split in record.splits.values():
        pictures = getattr(source, split.origin)
        places = {key: index for index, key in enumerate(pictures.keys)}
        looks = zip(split.keys, split.looks, strict=True)
        wide += [(pictures, places[key]) for key, seen in looks if seen.is_wide]
    if not wide:
        return record
    if data.range != "auto":
        return replace(record, range=list(data.range))
    return replace(record, range=list(value_range.measured(_arrays(wide, data, quiet))))


def _arrays(wide: list[tuple[Pictures, int]], data: Data, quiet: bool) -> Iterator[np.ndarray]:
    """The pictures of more than 8 bits that can be read."""

    def one(index: int) -> np.ndarray | None:
        try:
            array = decoded(*wide[index], data)
        except Unreadable:
            return None  # said where it is read for a split
        return array if isinstance(array, np.ndarray) else None

    arrays = in_threads(one, len(wide), data.workers, name="range", quiet=quiet)
    return (array for array in arrays if array is not None)


def meet_all(splits: dict[str, Split], *, quiet: bool, see: See | None = None) -> None:
    """Decode all pictures of splits that are not held, so that those which cannot be are known before a run
    begins; `see` gets each of the others."""
    for split in splits.values():
        if split.held is None:
            meet = partial(_meet, split, see)
            for _ in in_threads(meet, len(split), split.data.workers, name=f"try {split.name}", quiet=quiet):
                pass


def _meet(split: Split, see: See | None, index: int) -> None:
    pixels = split.met(index)
    if see and pixels is not None:
        see(split.name, split.keys[index], pixels)


def without_unreadable(record: Record, splits: dict[str, Split]) -> tuple[Record, dict[str, Split]]:
    """Leave out, before a run begins, what could not be decoded.

    Raises:
        UserError: nothing is left of a split.
    """
    unreadable = {name: dict(reasons) for name, reasons in record.unreadable.items()}
    listed, left = dict(record.splits), {}
    for name, split in splits.items():
        left[name] = split
        if not split.absent:
            continue
        old = record.splits[name]
        unreadable.setdefault(old.origin, {}).update(
            {split.keys[i]: reason for i, reason in split.absent.items()}
        )
        sound = [index for index in range(len(split)) if index not in split.absent]
        if not sound:
            reasons = with_reasons((split.keys[index], reason) for index, reason in split.absent.items())
            raise UserError(f"no picture of the {name} split can be read: {reasons}; fix or remove them")
        labels = None if old.labels is None else [old.labels[i] for i in sound]
        listed[name] = Listed(old.origin, [old.keys[i] for i in sound], labels, [old.looks[i] for i in sound])
        left[name] = Split(
            name,
            split.data,
            split.pictures,
            split.indices[sound],
            listed[name].keys,
            None if split.numbers is None else split.numbers[sound],
            listing=split.listing,
            prepared=split.prepared and _moved(split, sound, listed[name]),
            held=None if split.held is None else split.held[sound],
        )
    return replace(record, splits=listed, unreadable=unreadable), left


def _moved(split: Split, sound: list[int], listed: Listed) -> Prepared:
    """The prepared pictures of what is left of a split; those of the whole are deleted."""
    digests = [seen.digest for seen in listed.looks]
    moved = Prepared.of(Path(split.data.cache), split.name, split.data, digests)
    for place, index in enumerate(sound):
        if (pixels := split.prepared.get(index)) is not None:
            moved.put(place, pixels)
    split.prepared.delete()
    return moved
