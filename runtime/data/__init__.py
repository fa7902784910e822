"""Data sets: from the name of a source to the three splits, decoded to uint8.

train          what the networks learn from
validation     given, or cut from train by a hash of each picture's name; chooses checkpoints and settings
test           only for figures that are reported
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data

from ..randomness import share_of
from . import value_range
from .decode import Unreadable, decode
from .prepared import Prepared
from .record import RECORDED, Listed, Look, Record, differing, look, note_skipped, skipped, some, summary
from .source import Pictures, Source
from .transform import central, least_size, prepare

MODULES = {"mnist5k": "mnist5k", "folder": "folder", "parquet": "parquet"}  # all others are torchvision's
SPLITS = ("train", "validation", "test")
SAME = 0.995  # share of the sub-pixels that are black, or white, from which on a picture is called blank
BAR = 5000  # pictures from which on a bar shows how far the work is


@cache
def _threads(workers: int) -> ThreadPoolExecutor:
    """Threads that read and decode pictures; Pillow lets them run side by side."""
    return ThreadPoolExecutor(max(1, min(workers, os.cpu_count() or 1)))


@dataclass
class Split:
    """Some of a source's pictures, decoded: held in memory, or read as they are asked for."""

    name: str
    data: Data
    pictures: Pictures
    indices: np.ndarray  # [N] int64 into the pictures, -1 where one is gone
    keys: Sequence[str]  # [N] names
    numbers: np.ndarray | None  # [N] int64 classes, or None without
    absent: dict[int, str] = field(default_factory=dict)  # pictures that a begun run goes on without, and why
    listing: Path | None = None  # the run in which pictures are listed that it goes on without
    prepared: Prepared | None = None  # where prepared pictures are kept
    held: Tensor | None = field(default=None, repr=False)  # [N, C, H + m, W + m] uint8

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> Tensor | None:
        """[N] int64, or None without classes."""
        return None if self.numbers is None else torch.from_numpy(self.numbers)

    def names(self, indices: Tensor) -> list[str]:
        """The names of the pictures with these indices [n]; of the one that stands in, where one could not be read."""
        standing = (next(i for i in self._standing_in(index) if i not in self.absent) for index in indices.tolist())
        return [self.keys[index] for index in standing]

    def _standing_in(self, index: int) -> Iterator[int]:
        """A picture, and those that stand in for it where it cannot be read: the next ones of its class."""
        for at in range(index, index + len(self)):
            if self.numbers is None or self.numbers[at % len(self)] == self.numbers[index]:
                yield at % len(self)

    def read(self, index: int) -> np.ndarray:
        """Decode one picture: uint8 [C, H + m, W + m].

        Under data.on_error `skip` the next one of its class that can be read stands in for one that cannot: on every
        process, and when the run is resumed, it is the same.

        Raises:
            UserError: it cannot be read, and data.on_error is `stop`, or no other of its class can be.
        """
        for stand_in in self._standing_in(index):
            try:
                return self.decoded(stand_in)
            except Unreadable as error:
                if self.data.on_error == "stop":
                    if self.listing and index not in self.absent:
                        note_skipped(self.listing, self.keys[index], error.reason)
                    raise UserError(f"{error}; mend it, or go on without it: --data.on_error skip") from error
                self._skip(stand_in, error)
        raise UserError(
            f"{self.keys[index]} cannot be read, nor any other picture of its class in the {self.name} split; "
            "mend them, or begin a run without them (a new --out)"
        )

    def decoded(self, index: int) -> np.ndarray:
        """One picture and no other, uint8 [C, H + m, W + m]; raises Unreadable."""
        if index in self.absent:
            raise Unreadable(self.keys[index], self.absent[index])
        if self.prepared and (kept := self.prepared.get(index)) is not None:
            return kept
        at = int(self.indices[index])
        picture = decoded(self.pictures, at, self.data)
        try:
            pixels = prepare(picture, self.data)
        except (UserError, ValueError, OSError, MemoryError) as error:
            raise Unreadable(self.pictures.reader.where(at), str(error)) from error
        if self.prepared:
            self.prepared.put(index, pixels)
        return pixels

    def _skip(self, index: int, error: Unreadable) -> None:
        if index not in self.absent:
            self.absent[index] = error.reason
            if self.listing:
                note_skipped(self.listing, self.keys[index], error.reason)

    def canvas(self, indices: Tensor) -> Tensor:
        """Pictures [n, C, H + m, W + m] uint8, with the margin from which training takes its windows."""
        if self.held is not None:
            return self.held.index_select(0, indices)  # several times as fast as held[indices]
        return torch.from_numpy(np.stack([*_threads(self.data.workers).map(self.read, indices.tolist())]))

    def images(self, indices: Tensor) -> Tensor:
        """Pictures [n, C, H, W] uint8 as evaluation, encoding and figures see them."""
        return central(self.canvas(indices), self.data)

    def hold(self, quiet: bool = True) -> None:
        """Decode all pictures and keep them."""
        shape = (self.data.channels, *(pixels + self.data.margin for pixels in self.data.size))
        held = torch.empty(len(self), *shape, dtype=torch.uint8)
        pixels = _threads(self.data.workers).map(self.read, range(len(self)))
        for index, picture in enumerate(_shown(pixels, len(self), f"decode {self.name}", quiet)):
            held[index] = torch.from_numpy(picture.copy())
        self.held = held


@dataclass(frozen=True)
class DataSet:
    """The three splits and what the classes are called."""

    train: Split
    validation: Split
    test: Split
    label_names: tuple[str, ...]  # empty without classes
    fingerprint: str  # of names, labels and contents
    data: Data  # the settings, with a range in place of `auto` where there are pictures of more than 8 bits
    record: Record
    source: Source = field(repr=False)
    new: int = 0  # pictures that came after the run began, and are no part of it

    def split(self, name: str) -> Split:
        """A split by its name."""
        return getattr(self, name)

    def summary(self) -> str:
        """What was seen, in one short paragraph."""
        lines = summary(self.record, roots_of(self.data))
        new = f"\n      {self.new:,} came later and are no part of this run; a new --out takes them"
        return lines + (new if self.new else "")


def roots_of(data: Data) -> str:
    """Where the pictures are, as the settings say."""
    given = [root for root in (data.train_root, data.validation_root, data.test_root) if root]
    return data.table or ", ".join(given) or (data.source if data.source == "mnist5k" else data.root)


def open_source(data: Data) -> Source:
    """The pictures of the source that the settings name, in the splits that it has.

    Raises:
        UserError: it is not there, or its layout or labels are not understood.
    """
    source: Source = import_module(f"{__name__}.{MODULES.get(data.source, 'torchvision_sets')}").load(data)
    if data.labels:
        return source
    bare = {name: p and replace(p, labels=None) for name in SPLITS for p in [getattr(source, name)]}
    return replace(source, **bare, label_names=())


def decoded(pictures: Pictures, index: int, data: Data) -> Any:
    """A picture of a source as `prepare` takes it.

    Raises:
        Unreadable: for whatever reason.
    """
    where = pictures.reader.where(index)
    try:
        content = pictures.reader.content(index)
    except OSError as error:
        raise Unreadable(where, error.strerror or str(error)) from error
    return decode(content, where, least=least_size(data))


def load(data: Data, *, run: Path | None = None, expected: str | None = None, quiet: bool = True) -> DataSet:
    """The data set that the configuration names; a run that has begun keeps the pictures that it began with.

    Args:
        run: the run directory; where its record of pictures is, the splits are those, else it is written there.
        expected: the fingerprint of the data that its checkpoints learnt from; one of a version before runs kept a record
            has another form, and the data are identified in that form then.

    Raises:
        UserError: the data are not there, cannot be read, are too few to split, or are not those of the run.
    """
    source = open_source(data)
    legacy = expected is not None and not expected.startswith(RECORDED)
    kept = Record.read(run) if run else None
    mapped = lambda work, items: [*_shown(_threads(data.workers).map(work, items), len(items), "look", quiet)]
    absent: dict[str, dict[int, str]] = {}
    record = _survey(source, data, mapped) if kept is None else kept
    if record.range is not None:
        data = replace(data, range=tuple(record.range))
    elif data.range == "auto":
        record, data = _with_range(record, source, data)

    def opened(name: str) -> Split:
        listed = record.splits[name]
        pictures = getattr(source, listed.origin)
        if pictures is None:
            raise UserError(f"the run's {name} split was a folder or file of its own, and {roots_of(data)} has none now")
        indices, absent[name] = differing(listed, pictures, mapped)
        if kept is not None:
            absent[name] = _as_listed(absent[name], listed, pictures, indices, data, skipped(run))
        numbers = None if listed.labels is None else np.array(listed.labels, dtype=np.int64)
        prepared = None
        if data.cache:
            try:
                prepared = Prepared.of(Path(data.cache), name, data, [look.digest for look in listed.looks])
            except OSError as error:
                raise UserError(f"data.cache {data.cache} cannot be written ({error.strerror}); give another") from error
        return Split(name, data, pictures, indices, listed.keys, numbers, dict(absent[name]), run, prepared)

    splits = {name: opened(name) for name in SPLITS}
    if kept is not None:
        _settle_differences(splits, absent, data, run)
    held_bytes = sum(map(len, splits.values())) * data.channels * np.prod([s + data.margin for s in data.size])
    if held_bytes <= data.memory_gb * 2**30:
        for split in splits.values():
            split.hold(quiet)
        if kept is None:
            record, splits = _without_unreadable(record, splits, run)
    for name, split in splits.items():
        if not len(split):
            raise UserError(_too_few(name, len(source.train)))
    fingerprint = _former_fingerprint(splits) if legacy else record.fingerprint()
    if kept is None and not legacy and run is not None and run.is_dir() and expected in (None, fingerprint):
        record.write(run)
    return DataSet(
        **splits,
        label_names=tuple(record.label_names),
        fingerprint=fingerprint,
        data=data,
        record=record,
        source=source,
        new=0 if kept is None else _new_pictures(record, source),
    )


def _as_listed(
    absent: dict[int, str],
    listed: Listed,
    pictures: Pictures,
    indices: np.ndarray,
    data: Data,
    before: dict[str, str],
) -> dict[int, str]:
    """What becomes of pictures that the run met before and could not read.

    Under data.on_error `skip` they stay left out, mended or not, so that a resumed run makes the same choice; under `stop`
    the command ended at such a picture, and one that was mended since is taken.
    """
    met = {place: before[key] for place, key in enumerate(listed.keys) if key in before}
    if data.on_error == "skip":
        return absent | met
    mended = {place for place in met if indices[place] >= 0 and not look(pictures, int(indices[place])).reason}
    return {place: reason for place, reason in absent.items() if place not in mended}


def _new_pictures(record: Record, source: Source) -> int:
    """How many pictures of a source a run does not know."""
    known = set(record.unreadable)
    for split in record.splits.values():
        known.update(split.keys)
    given = (getattr(source, name) for name in SPLITS)
    return sum(key not in known for pictures in given if pictures is not None for key in pictures.keys)


def blank(pixels: np.ndarray) -> bool:
    """Whether pixels [C, H, W] uint8 are all about one value, or nearly all black, or nearly all white."""
    extreme = max((pixels == 0).mean(), (pixels == 255).mean())
    return bool(int(pixels.max()) - int(pixels.min()) <= 2 or extreme >= SAME)


def refuse_blank(split: Split) -> None:
    """Refuse a set of which most pictures show nothing, by up to 64 of them, spread evenly.

    Raises:
        UserError: most are of one colour, or all black or white.
    """
    shown = split.canvas(torch.linspace(0, len(split) - 1, min(64, len(split)), dtype=torch.float64).long())
    count = sum(blank(pixels) for pixels in shown.numpy())
    if count > len(shown) / 2:
        raise UserError(
            f"{count} of {len(shown)} training pictures are of one colour, or all black or white: nothing can be learnt "
            "from them. If they hold more than 8 bits, say which values are black and white: --data.range LOW HIGH; "
            "`vqprior check` shows them"
        )


def _too_few(name: str, pictures: int) -> str:
    return f"of {pictures} pictures none fall into the {name} split; add pictures, or raise data.validation and data.test"


def _survey(source: Source, data: Data, mapped: Callable[..., list[Any]]) -> Record:
    """One look at every picture, and the splits: those given, and the others cut from train.

    Raises:
        UserError: pictures cannot be read, and data.on_error is `stop`; or a split is empty.
    """
    given = {name: p for name in SPLITS if (p := getattr(source, name)) is not None}
    looks = {name: mapped(lambda i, p=p: look(p, i), range(len(p))) for name, p in given.items()}
    bad = [(given[name], i, seen.reason) for name, found in looks.items() for i, seen in enumerate(found) if seen.reason]
    if bad and data.on_error == "stop":
        named = [f"{pictures.reader.where(index)} ({reason})" for pictures, index, reason in bad]
        raise UserError(
            f"{len(named):,} of {sum(map(len, given.values())):,} pictures cannot be read: {some(named)}. "
            "Mend them or move them away, or go on without them: --data.on_error skip"
        )
    shares = np.array([share_of(key) for key in source.train.keys])
    test_share = 0.0 if source.test is not None else data.test
    validation_share = 0.0 if source.validation is not None else data.validation
    of_train = {
        "train": np.flatnonzero(shares >= test_share + validation_share),
        "validation": np.flatnonzero((shares >= test_share) & (shares < test_share + validation_share)),
        "test": np.flatnonzero(shares < test_share),
    }
    splits = {}
    for name in SPLITS:
        origin = name if name in given else "train"
        pictures, indices = given[origin], of_train[name]
        if name in given and name != "train":
            indices = np.arange(len(pictures))
        splits[name] = _listed(origin, pictures, [i for i in indices.tolist() if not looks[origin][i].reason], looks[origin])
        if not splits[name].keys:
            raise UserError(_too_few(name, len(source.train)))
    return Record(
        splits,
        list(source.label_names),
        source.layout,
        dict(source.left_out),
        {pictures.keys[index]: reason for pictures, index, reason in bad},
    )


def _listed(origin: str, pictures: Pictures, indices: list[int], looks: list[Look]) -> Listed:
    labels = None if pictures.labels is None else pictures.labels[indices].tolist()
    return Listed(origin, [pictures.keys[i] for i in indices], labels, [looks[i] for i in indices])


def _with_range(record: Record, source: Source, data: Data) -> tuple[Record, Data]:
    """Measure, over the whole set, what pictures of more than 8 bits hold, and fix their range by it."""
    wide: list[tuple[Pictures, int]] = []
    for split in record.splits.values():
        pictures = getattr(source, split.origin)
        places = {key: index for index, key in enumerate(pictures.keys)}
        looks = zip(split.keys, split.looks, strict=True)
        wide += [(pictures, places[key]) for key, seen in looks if seen.kind not in ("", "8 bits")]
    if not wide:
        return record, data
    found = value_range.measured(_arrays(wide, data))
    return replace(record, range=list(found)), replace(data, range=found)


def _arrays(wide: list[tuple[Pictures, int]], data: Data) -> Iterable[np.ndarray]:
    """The pictures of more than 8 bits that can be read."""
    for pictures, index in wide:
        try:
            array = decoded(pictures, index, data)
        except Unreadable:
            continue  # said where it is read for a split
        if isinstance(array, np.ndarray):
            yield array


def _settle_differences(
    splits: dict[str, Split],
    absent: dict[str, dict[int, str]],
    data: Data,
    run: Path | None,
) -> None:
    """Pictures of a begun run that are not what they were: list them, or refuse to go on without them.

    Raises:
        UserError: there are some, and data.on_error is `stop`.
    """
    named = [f"{splits[name].keys[i]} ({why})" for name, found in absent.items() for i, why in found.items()]
    if not named:
        return
    if data.on_error == "stop":
        total = sum(map(len, splits.values()))
        raise UserError(
            f"{len(named):,} of the {total:,} pictures that {run} began with are other pictures now: {some(named)}. "
            "Put them back, or go on without them: --data.on_error skip; or start a new run with --out"
        )
    before = skipped(run)
    for name, found in absent.items():
        for index, reason in found.items():
            if (key := splits[name].keys[index]) not in before:
                note_skipped(run, key, reason)


def _without_unreadable(record: Record, splits: dict[str, Split], run: Path | None) -> tuple[Record, dict[str, Split]]:
    """Leave out, before a run begins, what could not be decoded."""
    unreadable, listed = dict(record.unreadable), dict(record.splits)
    for name, split in splits.items():
        if not split.absent:
            continue
        unreadable |= {split.keys[index]: reason for index, reason in split.absent.items()}
        sound = [index for index in range(len(split)) if index not in split.absent]
        old = record.splits[name]
        labels = None if old.labels is None else [old.labels[i] for i in sound]
        listed[name] = Listed(old.origin, [old.keys[i] for i in sound], labels, [old.looks[i] for i in sound])
        splits[name] = replace(
            split,
            indices=split.indices[sound],
            keys=listed[name].keys,
            numbers=None if split.numbers is None else split.numbers[sound],
            absent={},
            prepared=None,  # its places are those of the split before
            held=split.held[sound],
        )
    return replace(record, splits=listed, unreadable=unreadable), splits


def _shown(results: Iterable[Any], count: int, name: str, quiet: bool) -> Iterable[Any]:
    """The results, with a bar where there are many."""
    return tqdm(results, desc=name, total=count, disable=quiet or count < BAR, leave=False)


def _former_fingerprint(splits: dict[str, Split]) -> str:
    """Names and labels of all pictures and the pixels of up to 32 a split, spread evenly, in one hash.

    It is what runs were bound to before they kept a record of their pictures.
    """
    digest = hashlib.sha256()
    for split in splits.values():
        digest.update("\n".join(split.keys).encode("utf-8", "surrogateescape"))
        if split.labels is not None:
            digest.update(split.labels.numpy().astype("<i8").tobytes())
        for index in np.unique(np.linspace(0, len(split) - 1, 32).astype(int)):
            digest.update(split.canvas(torch.tensor([index])).numpy().tobytes())
    return digest.hexdigest()
