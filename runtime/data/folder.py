"""A folder of images: flat, or one sub-folder a class; alone, or with folders of splits in it.

photos/                 photos/                 photos/                     photos/
    a.jpg                   cats/a.jpg              Training/cats/a.jpg         archive/train/a.jpg
    b.png                   dogs/b.png              Testing/cats/c.jpg          archive/val/b.jpg

The words that name splits are in `splits`. Explicit settings beat guessing: with data.train_root (and
validation_root, test_root) or data.table nothing is told from names of folders.
"""

import json
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data

from .source import Pictures, Source, counted, explicit_roots, in_words, one_line, printable
from .splits import differ_by_splits, in_order, split_of

ENDINGS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .avif .bmp .gif .tif .tiff .ppm .pgm .npy".split(),
)
HEIF = frozenset((".heic", ".heif"))  # read where the package pillow_heif is
INSTEAD = {
    ".parquet": "; for Parquet files --data.source parquet",
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"), "; unpack what is packed"),
}
"""What is answered where there are no pictures, and files with these endings."""
TABLES = (".csv", ".jsonl")  # endings of files that may hold classes
SAY_WHICH = "say which is which: --data.train_root FOLDER --data.test_root FOLDER"


SYSTEM = frozenset(
    ("@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "lost+found")
)
"""Folders of network drives and systems: thumbnails of the pictures beside them, and what was deleted."""
OURS = frozenset((".unfinished", "CACHEDIR.TAG", ".vqprior"))
MARKERS = {
    "samples.json": {"prior", "seed", "top_p"},
    "completions.json": {"prior", "codes_drawn"},
    "scores.json": {"quantile", "restorations"},
    "run.json": {"format", "starts"},
}
"""Files that this program writes, and keys that tell them from other people's."""


@cache
def heif_is_there() -> bool:
    """Whether HEIF can be read; if so, Pillow opens it from now on in this process."""
    if find_spec("pillow_heif") is None:
        return False
    import pillow_heif

    pillow_heif.register_heif_opener()
    return True


@dataclass(frozen=True)
class FileReader:
    """Pictures in files."""

    root: Path
    names: Sequence[str]  # relative to root, as the file system has them

    def content(self, index: int) -> bytes:
        path = self._path(index)
        if path.suffix.lower() in HEIF:
            heif_is_there()  # here, since every process that decodes needs it
        return path.read_bytes()

    def where(self, index: int) -> str:
        return one_line(printable(str(self._path(index))))

    def stamp(self, index: int) -> tuple[int, int]:
        status = self._path(index).stat()
        return status.st_size, status.st_mtime_ns

    def _path(self, index: int) -> Path:
        return self.root / self.names[index]


@dataclass
class Listing:
    """What a walk through a folder found."""

    names: list[str] = field(default_factory=list)  # files wanted, relative to the folder, sorted
    folders: list[str] = field(default_factory=list)  # those with nothing in them too
    left_out: Counter[str] = field(default_factory=Counter)  # by kind, in words


def walk(root: Path, endings: frozenset[str] = ENDINGS) -> Listing:
    """The files with these endings under a folder.

    Each real folder is visited once, however many links lead to it. Hidden files and folders are left out,
    those of a system, and folders that vqprior or another program wrote for itself.

    Raises:
        UserError: a folder cannot be read.
    """
    listing = Listing()
    top, visited = os.path.realpath(root), set()
    folders, links = [""], []  # still to be visited; links last, so that a folder inside keeps its own name
    while folders or links:
        inside = folders.pop() if folders else links.pop(0)
        path = os.path.join(root, inside)
        real = os.path.realpath(path)
        if real in visited or (inside and f"{top}/".startswith(f"{real.rstrip('/')}/")):
            listing.left_out["links to folders that are listed already"] += 1
            continue
        visited.add(real)
        entries = _entries(path)
        if inside and _written_by_us(path, {entry.name for entry in entries}):
            listing.left_out[f"folder that vqprior wrote ({printable(inside)})"] += 1
            continue
        listing.folders += [inside] if inside else []
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            if entry.name in SYSTEM:
                listing.left_out[f"named {entry.name}"] += 1
            elif entry.name.startswith("."):
                listing.left_out["hidden"] += 1
            elif os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                (links if entry.is_symlink() else folders).append(name)
            elif reason := _left_out(entry, endings):
                listing.left_out[reason] += 1
            else:
                listing.names.append(name)
    listing.names.sort()
    if endings == ENDINGS and (bare := _without_files(listing)):
        listing.left_out[f"folders without pictures ({in_words([*map(printable, bare)])})"] = len(bare)
    return listing


def _without_files(listing: Listing) -> list[str]:
    """The folders with no file in or below them: a class of another format's pictures, maybe; not those in
    such a folder."""
    filled = {""}
    for name in listing.names:
        while (name := os.path.dirname(name)) not in filled:
            filled.add(name)
    return sorted(name for name in listing.folders if name not in filled and os.path.dirname(name) in filled)


def _entries(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"the folder {printable(path)} cannot be read ({error.strerror}); allow it, or move it"
        ) from error


def _written_by_us(path: str, names: set[str]) -> bool:
    """Whether a folder is a run, samples, completions or a cache of this program; names alone could be
    anybody's."""
    if OURS & names:
        return True
    return any(name in names and _has_keys(os.path.join(path, name), keys) for name, keys in MARKERS.items())


def _has_keys(file: str, keys: set[str]) -> bool:
    """Whether a file is a JSON object with these keys."""
    try:
        with open(file, encoding="utf-8") as opened:
            tree = json.load(opened)
    except (OSError, ValueError):
        return False
    return isinstance(tree, dict) and keys <= tree.keys()


def _left_out(entry: os.DirEntry[str], endings: frozenset[str]) -> str:
    """Why a file is left out, in words; empty for one that is wanted."""
    ending = os.path.splitext(entry.name)[1].lower()
    if ending in HEIF and endings == ENDINGS:
        return "" if heif_is_there() else f"ending {ending} (pip install pillow-heif)"
    if ending not in endings:
        return f"ending {printable(ending)}" if ending else "without an ending"
    if os.path.exists(entry.path) and not entry.is_file():
        # reading a pipe would wait for ever; a link to nothing, or to itself, is a picture that is missing
        return "no regular files"
    return ""


def load(data: Data) -> Source:
    """The images of data.train_root and its like, those that data.table lists, or those below data.root.

    Raises:
        UserError: there are none, or their layout is not understood.
    """
    roots = explicit_roots(data)
    if data.table:
        from .table import load_table

        return load_table(data)
    left_out: Counter[str] = Counter()
    if roots:
        parts = {split: _listed(Path(root), f"data.{split}_root", left_out) for split, root in roots.items()}
        _refuse_shared({split: part.root for split, part in parts.items()})
        seen = f"{in_words(list(parts))} as given"
    else:
        parts, seen = _told_from_names(Path(data.root), left_out)
    return _source(parts, seen, left_out, data.labels)


@dataclass(frozen=True)
class Part:
    """The files of one split."""

    root: Path
    names: list[str]  # relative to root
    setting: str  # that can name its root


def _listed(root: Path, setting: str, left_out: Counter[str]) -> Part:
    _require_folder(root, setting)
    listing = walk(root)
    left_out.update(listing.left_out)
    _require_images(root, listing.names, left_out)
    return Part(root, listing.names, setting)


def _require_folder(root: Path, setting: str) -> None:
    if not root.is_dir():
        raise UserError(
            f"{setting} is {str(root)!r}, which is not a folder{INSTEAD.get(root.suffix.lower(), '')}. "
            f"Give your folder of images: --{setting} FOLDER"
        )


def _require_images(root: Path, names: Sequence[str], left_out: Mapping[str, int]) -> None:
    if not names:
        there = ", ".join(f"{count:,} {kind}" for kind, count in left_out.items())
        hint = next((words for kind, words in INSTEAD.items() if f"ending {kind}" in left_out), "")
        raise UserError(
            f"no images are under {printable(str(root))}{f' (there are {there})' if there else ''}; "
            f"it takes {', '.join(sorted(ENDINGS))}, also in sub-folders{hint}"
        )


def _refuse_shared(roots: Mapping[str, Path]) -> None:
    """Refuse explicit roots of which one is in another: pictures would be in two splits."""
    real = {split: os.path.realpath(root) for split, root in roots.items()}
    for split, inner in real.items():
        for other, outer in real.items():
            if split != other and f"{inner}/".startswith(f"{outer.rstrip('/')}/"):
                raise UserError(
                    f"data.{split}_root ({roots[split]}) lies in data.{other}_root ({roots[other]}): its "
                    "pictures would be in two splits. Give folders that share none, or list the pictures: "
                    "--data.table FILE.csv"
                )


def refuse_among_pictures(out: Path, data: Data, flag: str = "--out") -> None:
    """Refuse to write into a folder of pictures: the next command would take what is there for some of them,
    or, below data.root, all of that folder for a run.

    Raises:
        UserError: `out`, which the flag names, is one.
    """
    if data.source != "folder" or data.table:
        return
    roots = {f"data.{split}_root": root for split, root in explicit_roots(data).items()}
    for setting, root in (roots or {"data.root": data.root}).items():
        at, top = os.path.realpath(out), os.path.realpath(root).rstrip("/")
        if f"{at}/".startswith(f"{top}/") and (at == top or _has_pictures(out)):
            what = f"is {setting}, the folder of the pictures" if at == top else f"has pictures of {setting}"
            raise UserError(
                f"{out} {what}: what is written there would be taken for some of them; give another one with "
                f"{flag}"
            )


def _has_pictures(folder: Path) -> bool:
    """Whether there are pictures in or below a folder; one that this program wrote is none of pictures."""
    if not folder.is_dir() or _written_by_us(str(folder), set(os.listdir(folder))):
        return False
    return bool(walk(folder).names)


def _told_from_names(root: Path, left_out: Counter[str]) -> tuple[dict[str, Part], str]:
    """The splits of data.root by the names of its folders, and what was seen in words."""
    _require_folder(root, "data.root")
    listing = walk(root)
    left_out.update(listing.left_out)
    _require_images(root, listing.names, left_out)
    names, folders, seen = listing.names, listing.folders, ""
    wrapper = _only_folder(names)
    if wrapper and split_of(wrapper) is None:
        inner = [name.removeprefix(f"{wrapper}/") for name in names]
        inner_folders = [
            name.removeprefix(f"{wrapper}/") for name in folders if name.startswith(f"{wrapper}/")
        ]
        if any(split_of(top) for top in _tops(inner)):
            root, names, folders, seen = (
                root / wrapper,
                inner,
                inner_folders,
                f"in the folder {printable(wrapper)}: ",
            )
    tops = _tops(names)
    by_split: dict[str, list[str]] = {}
    for folder in sorted({name.split("/", 1)[0] for name in folders if split_of(name.split("/", 1)[0])}):
        by_split.setdefault(split_of(folder) or "", []).append(folder)
    if not any(split_of(top) for top in tops):
        return {"train": Part(root, names, "data.root")}, seen
    _refuse_mixed_splits(root, names, tops, by_split)
    parts = {}
    for split in in_order(by_split):
        folder = by_split[split][0]
        inside = [name.removeprefix(f"{folder}/") for name in names if name.startswith(f"{folder}/")]
        _require_images(root / folder, inside, {})
        parts[split] = Part(root / folder, inside, f"data.{split}_root")
    used = ", ".join(by_split[split][0] for split in parts)
    return parts, f"{seen}sub-folder{'s' if len(parts) > 1 else ''} {used}"


def _refuse_mixed_splits(
    root: Path,
    names: Sequence[str],
    tops: Sequence[str],
    by_split: Mapping[str, list[str]],
) -> None:
    """Refuse folders of splits beside others, beside pictures, twice for a split, or without train."""
    where, words = printable(str(root)), [folder for folders in by_split.values() for folder in folders]
    others = [printable(top) for top in tops if split_of(top) is None]
    if others:
        raise UserError(
            f"{where} has folders named like splits ({', '.join(words)}) beside others ({in_words(others)}): "
            f"are these classes or splits? If classes, --data.train_root {where}; if splits, move the others "
            f"away or {SAY_WHICH}"
        )
    if loose := [printable(name) for name in names if "/" not in name]:
        raise UserError(
            f"{where} mixes two layouts: folders of splits ({', '.join(words)}) and pictures beside them "
            f"({in_words(loose)}). Move these into one of the folders, or {SAY_WHICH}"
        )
    for split, folders in by_split.items():
        if len(folders) > 1:
            raise UserError(
                f"{where} has two folders for the {split} split, {' and '.join(folders)}. Join them, or "
                f"{SAY_WHICH}"
            )
    if "train" not in by_split:
        raise UserError(
            f"{where} has {', '.join(words)} and no folder train to learn from. To learn from all its "
            f"pictures, --data.train_root {where}; else {SAY_WHICH}"
        )


def _tops(names: Sequence[str]) -> list[str]:
    """The first folders of names that lie in one."""
    return sorted({name.split("/", 1)[0] for name in names if "/" in name})


def _only_folder(names: Sequence[str]) -> str | None:
    """The one folder at the top in which all files lie, if they do."""
    tops = _tops(names)
    return tops[0] if len(tops) == 1 and all("/" in name for name in names) else None


def _source(parts: Mapping[str, Part], seen: str, left_out: Counter[str], labelled: bool) -> Source:
    """Pictures and classes of the splits.

    Raises:
        UserError: a split mixes layouts, or two differ, or a held-out split has a class that train lacks.
    """
    names, note = _classes(parts) if labelled else _without_classes(parts)
    if labelled and not names and any(f"ending {ending}" in left_out for ending in TABLES):
        note += "; if a table has classes, name it: --data.table FILE"
    numbers = {name: number for number, name in enumerate(names)}
    pictures = {split: _pictures(part, numbers) for split, part in parts.items()}
    layout = "; ".join(text for text in (seen, note) if text)
    return Source(
        pictures["train"],
        pictures.get("test"),
        tuple(printable(name) for name in names),
        validation=pictures.get("validation"),
        layout=layout,
        left_out=dict(left_out),
    )


def _without_classes(parts: Mapping[str, Part]) -> tuple[list[str], str]:
    """As `_classes`, where none are wanted."""
    return [], "; ".join(("no classes (data.labels False)", *_deeper(parts, splits_alone=True)))


def _pictures(part: Part, numbers: Mapping[str, int]) -> Pictures:
    labels = None
    if numbers:
        labels = np.array([numbers[name.split("/", 1)[0]] for name in part.names], dtype=np.int64)
    return Pictures(FileReader(part.root, part.names), [printable(name) for name in part.names], labels)


def _classes(parts: Mapping[str, Part]) -> tuple[list[str], str]:
    """The classes of a layout, none where it is flat, and a note in words."""
    flat = {split: all("/" not in name for name in part.names) for split, part in parts.items()}
    for split, part in parts.items():
        loose = [name for name in part.names if "/" not in name]
        if loose and not flat[split]:
            raise UserError(
                f"{printable(str(part.root))} mixes two layouts: {counted(len(loose), 'image')} at its top ("
                f"{in_words([*map(printable, loose)])}) and {len(part.names) - len(loose):,} in sub-folders. "
                "Move them together, or use all without classes: --data.labels False"
            )
    for split, part in parts.items():
        if flat[split] != flat["train"]:
            shape = {True: "flat", False: "in sub-folders"}
            raise UserError(
                f"the images of {parts['train'].root} are {shape[flat['train']]} and those of {part.root} "
                f"{shape[flat[split]]}: lay both out alike, or use all without classes: --data.labels False"
            )
    if flat["train"]:
        return [], "flat, no classes"
    tops = {split: _tops(part.names) for split, part in parts.items()}
    for split, part in parts.items():
        if unknown := sorted(set(tops[split]) - set(tops["train"])):
            raise UserError(
                f"{printable(str(part.root))} has classes that {printable(str(parts['train'].root))} lacks: "
                f"{in_words([*map(printable, unknown)])}. Add such pictures to train or take them out of "
                f"{split}, or use all without classes: --data.labels False"
            )
    if len(tops["train"]) == 1:
        note = f"one sub-folder, {printable(tops['train'][0])}, which is not a class"
        return [], "; ".join((note, *_deeper(parts)))
    note = "a sub-folder a class"
    if differ_by_splits(tops["train"]):
        note += f" ({in_words([*map(printable, tops['train'])])}; if these are splits, {SAY_WHICH})"
    for split in parts:
        if lacking := sorted(set(tops["train"]) - set(tops[split])):
            note += f"; no pictures in {split} of {in_words([*map(printable, lacking)])}"
    return tops["train"], note


def _deeper(parts: Mapping[str, Part], *, splits_alone: bool = False) -> list[str]:
    """What to type where the sub-folders that tell something lie deeper, as in an unpacked download; it is
    not guessed. `splits_alone` where classes tell nothing."""
    flags, folders = [], []
    for part in parts.values():
        at = os.path.commonpath([os.path.dirname(name) for name in part.names])
        inside = [os.path.relpath(name, at) for name in part.names]
        if not at or any("/" not in name for name in inside):
            return []  # nothing is deeper; or pictures beside sub-folders, or no sub-folders
        folders = folders or _tops(inside)
        flags += [f"--{part.setting}", printable(str(part.root / at))]
    if splits_alone and not any(map(split_of, folders)):
        return []
    return [f"to go by the sub-folders {in_words([*map(printable, folders)])}: {shlex.join(flags)}"]
