"""The pictures of a run, kept in it when it begins: what is damaged, mended, added or gone later changes no
order.

    RUN/pictures.json.gz    for each split the names of its pictures, their labels, sizes, times and digests
    RUN/skipped.txt         pictures that the run went on without: a line has split, name and reason
    RUN/damaged.txt         pictures at which it stopped, in the same form

A picture is looked at again only where its size or the time of its file changed.
"""

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vqprior.configs.errors import UserError

from ..files import write_file
from .decode import EIGHT, Unreadable, facts
from .source import Content, Pictures, one_line

FORMAT = 1
KIND = "2-"  # of fingerprints; those of another kind begin otherwise
FILE, SKIPPED, DAMAGED = "pictures.json.gz", "skipped.txt", "damaged.txt"


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a stored picture says."""

    size: int  # bytes
    time: int  # of its file, in ns, or 0
    digest: str  # of its content, 16 hexadecimal digits
    format: str = ""  # JPEG, PNG, ...; empty where it cannot be read
    width: int = 0
    height: int = 0
    kind: str = ""  # of a pixel: "8 bits", "16 bits", ...
    frames: int = 1  # 2 stands for several
    reason: str = ""  # why it cannot be read, else empty

    @property
    def is_wide(self) -> bool:
        """Whether its pixels have more than 8 bits, which data.range makes 8."""
        return self.kind not in ("", *EIGHT)


@dataclass(frozen=True)
class Listed:
    """One split: which pictures, and what was seen of them."""

    origin: str  # the split of the source that holds them: train, validation or test
    keys: list[str]
    labels: list[int] | None
    looks: list[Look]


@dataclass(frozen=True)
class Record:
    """All splits of a data set as a run has them."""

    splits: dict[str, Listed]
    label_names: list[str]
    layout: str = ""
    left_out: dict[str, int] = field(default_factory=dict)
    # reasons by split of the source and name
    unreadable: dict[str, dict[str, str]] = field(default_factory=dict)
    range: list[float] | None = None  # what became black and white in pictures of more than 8 bits

    def fingerprint(self) -> str:
        """A hash of names, labels and contents."""
        digest = hashlib.sha256()
        for name, split in self.splits.items():
            looks = [look.digest for look in split.looks]
            digest.update(json.dumps([name, split.keys, split.labels, looks]).encode())
        return KIND + digest.hexdigest()

    def write(self, folder: Path) -> None:
        """Keep it in a run."""
        columns = {
            name: asdict(split) | {"looks": _columns(split.looks)} for name, split in self.splits.items()
        }
        tree = {"format": FORMAT} | asdict(self) | {"splits": columns}
        write_file(folder / FILE, gzip.compress(json.dumps(tree).encode(), 6, mtime=0))

    @classmethod
    def read(cls, folder: Path) -> "Record | None":
        """The record of a run, None where it has none.

        Raises:
            UserError: it is damaged or of a newer format.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            tree = json.loads(gzip.decompress(path.read_bytes()))
            if tree.pop("format") > FORMAT:
                raise UserError(f"{path} is of a newer version: upgrade vqprior")
            rows = {name: _rows(split["looks"]) for name, split in tree["splits"].items()}
            splits = {
                name: Listed(**(split | {"looks": rows[name]})) for name, split in tree["splits"].items()
            }
            return cls(**(tree | {"splits": splits}))
        except (OSError, EOFError, zlib.error, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} is damaged ({error}); restore it from a copy, or start a new run"
            ) from error


def _columns(looks: Sequence[Look]) -> dict[str, list[Any]]:
    return {name: [getattr(look, name) for look in looks] for name in Look.__dataclass_fields__}


def _rows(columns: dict[str, list[Any]]) -> list[Look]:
    names = list(columns)
    return [Look(**dict(zip(names, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def digest_of(content: Content | None) -> str:
    """16 hexadecimal digits of a stored picture."""
    if isinstance(content, np.ndarray):
        content = np.ascontiguousarray(content)
    return hashlib.blake2b(b"" if content is None else content, digest_size=8).hexdigest()


def look(pictures: Pictures, index: int) -> Look:
    """One look at a picture: its content and its header; its pixels are not decoded."""
    where = pictures.reader.where(index)
    try:
        size, time = pictures.reader.stamp(index)
        content = pictures.reader.content(index)
    except OSError as error:
        return Look(0, 0, "", reason=error.strerror or str(error))
    try:
        seen = facts(content, where)
    except Unreadable as error:
        return Look(size, time, digest_of(content), reason=error.reason)
    frames = 2 if seen.several else 1
    return Look(size, time, digest_of(content), seen.format, seen.width, seen.height, seen.kind, frames)


def note(file: Path, split: str, key: str, reason: str) -> None:
    """List a picture that could not be read; by any process, at any time: a line is one write."""
    with open(file, "ab", buffering=0) as listing:
        listing.write(f"{split}\t{one_line(key)}\t{' '.join(reason.split())}\n".encode())


def noted(file: Path) -> dict[tuple[str, str], str]:
    """Reasons by split and name, in a line, of the pictures that are listed in a file."""
    if not file.is_file():
        return {}
    lines = [line.split("\t", 2) for line in file.read_text(errors="replace").splitlines()]
    return {(words[0], words[1]): words[2] for words in lines if len(words) == 3}


def with_reasons(reasons: Iterable[tuple[str, str]]) -> str:
    """Names of pictures and what is wrong with them, those of one reason together: `a, b (it is gone)`."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons:
        names.setdefault(reason, []).append(name)
    return some([f"{some(alike)} ({reason})" for reason, alike in names.items()])


def some(names: Sequence[str], count: int = 10) -> str:
    """The first names of many, as text."""
    rest = f", and {len(names) - count:,} more" if len(names) > count else ""
    return ", ".join(map(one_line, names[:count])) + rest


def summary(record: Record, root: str) -> str:
    """What the data are, in one short paragraph."""
    looks = [look for split in record.splits.values() for look in split.looks]
    lines = [f"data: {root}: {record.layout}" if record.layout else f"data: {root}"]
    if record.label_names:
        counts = Counter(label for split in record.splits.values() for label in split.labels or ())
        named = [f"{name} ({counts[number]:,})" for number, name in enumerate(record.label_names)]
        lines.append(f"{len(named)} classes: {some(named, 20)}")
        in_train = set(record.splits["train"].labels or ())
        lacking = [name for number, name in enumerate(record.label_names) if number not in in_train]
        if lacking:
            lines.append(f"no picture in train of {some(lacking, 20)}: nothing is learnt of how they look")
    lines.append(_splits(record))
    lines.append(_formats(looks))
    if any(look.is_wide for look in looks) and record.range:
        low, high = record.range
        lines.append(f"pictures of more than 8 bits: {low:g} becomes black, {high:g} white (data.range)")
    if animated := sum(look.frames > 1 for look in looks):
        lines.append(f"{animated:,} hold several frames; the first of each is used")
    unreadable = sum(map(len, record.unreadable.values()))
    left_out = record.left_out | ({"unreadable": unreadable} if unreadable else {})
    if left_out:
        lines.append("left out: " + ", ".join(f"{count:,} {kind}" for kind, count in left_out.items()))
    return "\n      ".join(lines)


def _splits(record: Record) -> str:
    """How many pictures each split has and where they are from; of two in one way it is said once."""
    counts = {name: f"{len(split.keys):,} {name}" for name, split in record.splits.items()}
    by_origin: dict[str, list[str]] = {}
    for name in record.splits:
        if name != "train":
            cut = record.splits[name].origin == "train"
            how = "cut from train by a hash of the names" if cut else "given"
            by_origin.setdefault(how, []).append(counts[name])
    return ", ".join([counts["train"], *(f"{' and '.join(of)} ({how})" for how, of in by_origin.items())])


def _formats(looks: Sequence[Look]) -> str:
    """Formats and sizes, as in `3,068 JPEG, 400x400 to 711x400`."""
    counts = Counter((look.format, look.kind) for look in looks if look.format)
    kinds = [
        f"{n:,} {name}" + ("" if kind == "8 bits" else f" of {kind}")
        for (name, kind), n in counts.most_common()
    ]
    sizes = sorted({(look.width * look.height, look.width, look.height) for look in looks if look.format})
    if not sizes:
        return "nothing could be read"
    (_, *first), (_, *last) = sizes[0], sizes[-1]
    small, large = ("x".join(map(str, size)) for size in (first, last))
    return f"{', '.join(kinds)}, {small}" + ("" if small == large else f" to {large}") + " (width x height)"
