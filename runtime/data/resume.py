"""A run that has begun: which of its pictures are not what they were."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vqprior.configs.errors import UserError

from .record import DAMAGED, SKIPPED, Listed, Record, look, note, noted, with_reasons
from .source import SPLITS, Pictures, Source, one_line
from .split import Split
from .threads import in_threads

MOST = 0.5  # share of a split that a run may go on without


def differing(
    kept: Listed,
    kept_names: Sequence[str],
    pictures: Pictures,
    names: Sequence[str],
    *,
    workers: int = 1,
    quiet: bool = True,
) -> tuple[np.ndarray, dict[int, str]]:
    """Where the pictures of a kept split are now, and which are not what they were.

    Args:
        kept_names, names: of the classes, then and now.

    Returns:
        For each its index into `pictures`, -1 where it is gone; and by place in the split why it is not the
        same.
    """
    places = {key: index for index, key in enumerate(pictures.keys)}
    indices = np.array([places.get(key, -1) for key in kept.keys], dtype=np.int64)

    def changed(place: int) -> str:
        old, index = kept.looks[place], int(indices[place])
        if index < 0:
            return "it is gone"
        if kept.labels is not None:
            was = kept_names[kept.labels[place]]
            now = None if pictures.labels is None else names[int(pictures.labels[index])]
            if now != was:
                return f"its class was {was} and is {now or 'unknown'} now"
        try:
            stamp = pictures.reader.stamp(index)
        except OSError as error:
            return error.strerror or str(error)
        if stamp == (old.size, old.time) and old.time:  # without a time only the content tells
            return ""
        seen = look(pictures, index)
        return "" if seen.digest == old.digest else seen.reason or "it is another picture now"

    reasons = in_threads(changed, len(kept.keys), workers, name="look", quiet=quiet)
    return indices, {place: reason for place, reason in enumerate(reasons) if reason}


def as_met_before(split: Split, run: Path) -> dict[int, str]:
    """What is absent of a split, given what the run met before and could not read.

    What it went on without stays left out under data.on_error `skip`, mended or not: a resumed run makes the
    same choice. A picture at which it stopped, and that was mended since, is taken.
    """
    skipped, damaged = noted(run / SKIPPED), noted(run / DAMAGED)
    absent = dict(split.absent)
    for place, key in enumerate(map(one_line, split.keys)):
        if split.data.on_error == "skip" and (split.name, key) in skipped:
            absent[place] = skipped[split.name, key]
        elif place in absent and ((split.name, key) in damaged or (split.name, key) in skipped):
            index = int(split.indices[place])
            if index >= 0 and not look(split.pictures, index).reason:
                del absent[place]
    return absent


def settle_differences(splits: dict[str, Split], run: Path) -> None:
    """Pictures of a begun run that are not what they were: list them, or refuse to go on without them.

    Raises:
        UserError: there are some and data.on_error is `stop`, or too many to go on without.
    """
    named = [(split.keys[i], why) for split in splits.values() for i, why in split.absent.items()]
    if not named:
        return
    total = sum(map(len, splits.values()))
    count = f"{len(named):,} of the {total:,} pictures"
    found = f"{count} that {run} began with are other pictures now: {with_reasons(named)}. "
    if next(iter(splits.values())).data.on_error == "stop":
        raise UserError(
            f"{found}Put them back, or go on without them: --data.on_error skip; or start a new run with "
            "--out"
        )
    for split in splits.values():
        if len(split.absent) > MOST * len(split):
            raise UserError(
                f"{found}Of the {split.name} split that is more than half, too many to go on without: put "
                "them back, "
                "or start a new run with --out"
            )
    before = noted(run / SKIPPED)
    for split in splits.values():
        for index, reason in split.absent.items():
            if (split.name, one_line(split.keys[index])) not in before:
                note(run / SKIPPED, split.name, split.keys[index], reason)


def new_pictures(record: Record, source: Source) -> int:
    """How many pictures of a source a run does not know."""
    known = {name: set(record.unreadable.get(name, ())) for name in SPLITS}
    for split in record.splits.values():
        known[split.origin].update(split.keys)
    given = {name: pictures for name in SPLITS if (pictures := getattr(source, name)) is not None}
    return sum(key not in known[name] for name, pictures in given.items() for key in pictures.keys)
