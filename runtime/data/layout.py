"""The layout of a folder of images: which splits and classes the names of its sub-folders tell.

photos/                 photos/                 photos/                     photos/
    a.jpg                   cats/a.jpg              Training/cats/a.jpg         archive/train/a.jpg
    b.png                   dogs/b.png              Testing/cats/c.jpg          archive/val/b.jpg

The words that name splits are in `splits`.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vqprior.configs.errors import UserError

from .picture_files import Listing, require_images
from .source import counted, in_words, printable
from .splits import differ_by_splits, in_order, split_of

SAY_WHICH = "say which is which: --data.train_root FOLDER --data.test_root FOLDER"


@dataclass(frozen=True)
class Part:
    """The files of one split."""

    root: Path
    names: list[str]  # relative to root
    setting: str  # that can name its root


def splits_in(root: Path, listing: Listing) -> tuple[dict[str, Part], str]:
    """The splits of data.root by the names of its folders, and what was seen in words.

    Raises:
        UserError: they could mean two things.
    """
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
        require_images(root / folder, inside, {})
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


def classes_in(parts: Mapping[str, Part]) -> tuple[list[str], str]:
    """The classes of a layout, none where it is flat, and a note in words.

    Raises:
        UserError: a split mixes layouts, or two differ, or a held-out split has a class that train lacks.
    """
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


def without_classes(parts: Mapping[str, Part]) -> tuple[list[str], str]:
    """As `classes_in`, where none are wanted."""
    return [], "; ".join(("no classes (data.labels False)", *_deeper(parts, splits_alone=True)))
