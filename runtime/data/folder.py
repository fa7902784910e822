"""A folder of images: flat, or one sub-folder a class; alone, or with folders of splits in it (`layout`).

Explicit settings beat guessing: with data.train_root (and validation_root, test_root) or data.table nothing
is told from names of folders.
"""

import os
import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data

from .layout import Part, classes_in, splits_in, without_classes
from .picture_files import INSTEAD, FileReader, Listing, require_images, walk, written_by_us
from .source import Pictures, Source, explicit_roots, in_words, printable
from .table import load_table

TABLES = (".csv", ".jsonl", ".ndjson", ".tsv")  # endings of files that may hold classes


def load(data: Data) -> Source:
    """The images of data.train_root and its like, those that data.table lists, or those below data.root.

    Raises:
        UserError: there are none, or their layout is not understood.
    """
    roots = explicit_roots(data)
    if data.table:
        return load_table(data)
    left_out: Counter[str] = Counter()
    if roots:
        parts = {split: _listed(Path(root), f"data.{split}_root", left_out) for split, root in roots.items()}
        _refuse_shared({split: part.root for split, part in parts.items()})
        seen = f"{in_words(list(parts))} as given"
    else:
        root = Path(data.root)
        _require_folder(root, "data.root")
        parts, seen = splits_in(root, _walked(root, left_out))
    return _source(parts, seen, left_out, data)


def _listed(root: Path, setting: str, left_out: Counter[str]) -> Part:
    _require_folder(root, setting)
    return Part(root, _walked(root, left_out).names, setting)


def _walked(root: Path, left_out: Counter[str]) -> Listing:
    """What is under a folder of images; what is no image is counted in `left_out`."""
    listing = walk(root)
    left_out.update(listing.left_out)
    require_images(root, listing.names, left_out)
    return listing


def _require_folder(root: Path, setting: str) -> None:
    if not root.is_dir():
        raise UserError(
            f"{setting} is {str(root)!r}, which is not a folder{INSTEAD.get(root.suffix.lower(), '')}. "
            f"Give your folder of images: --{setting} FOLDER"
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
    if not folder.is_dir() or written_by_us(str(folder), set(os.listdir(folder))):
        return False
    return bool(walk(folder).names)


def _source(parts: Mapping[str, Part], seen: str, left_out: Counter[str], data: Data) -> Source:
    """Pictures and classes of the splits.

    Raises:
        UserError: a split mixes layouts, or two differ, or a held-out split has a class that train lacks.
    """
    names, note = classes_in(parts) if data.labels else without_classes(parts)
    if data.labels and not names and any(f"ending {ending}" in left_out for ending in TABLES):
        note += f"; {_use_of_tables(parts, data)}"
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


def _use_of_tables(parts: Mapping[str, Part], data: Data) -> str:
    """What to type where a table beside the pictures has their classes."""
    folders = () if data.train_root else {parts["train"].root, Path(data.root)}
    tables = [path for folder in folders for path in folder.iterdir() if path.suffix.lower() in TABLES]
    if len(tables) != 1:
        which = f"one of {in_words(sorted(printable(path.name) for path in tables))}" if tables else "a table"
        return f"if {which} has classes, name it: --data.table FILE"
    (table,) = tables
    of_split = table.parent != Path(data.root)  # then that of each split is found by its name
    flag = shlex.join(("--data.table", printable(table.name if of_split else str(table))))
    return f"if {printable(str(table))} has classes: {flag}"


def _pictures(part: Part, numbers: Mapping[str, int]) -> Pictures:
    labels = None
    if numbers:
        labels = np.array([numbers[name.split("/", 1)[0]] for name in part.names], dtype=np.int64)
    return Pictures(FileReader(part.root, part.names), [printable(name) for name in part.names], labels)
