"""Pictures in files: which of those under a folder are pictures, and how one is read."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vqprior.configs.errors import UserError

from .decode import heif_is_there
from .source import in_words, one_line, printable

ENDINGS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .avif .bmp .gif .tif .tiff .ppm .pgm .npy".split(),
)
HEIF = frozenset((".heic", ".heif"))  # read where the package pillow_heif is
PACKED = dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"), "; unpack what is packed")
INSTEAD = {".parquet": "; for Parquet files --data.source parquet", **PACKED}
"""What is answered where there are no pictures, and files with these endings."""
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


@dataclass(frozen=True)
class FileReader:
    """Pictures in files."""

    root: Path
    names: Sequence[str]  # relative to root, as the file system has them

    def content(self, index: int) -> bytes:
        return self._path(index).read_bytes()

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
        if inside and written_by_us(path, {entry.name for entry in entries}):
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
        folders = "folder" if len(bare) == 1 else "folders"
        listing.left_out[f"{folders} without pictures ({in_words([*map(printable, bare)])})"] = len(bare)
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


def written_by_us(path: str, names: set[str]) -> bool:
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


def require_images(root: Path, names: Sequence[str], left_out: Mapping[str, int]) -> None:
    """Refuse a folder without images, in words of what a walk left out there."""
    if not names:
        there = ", ".join(f"{count:,} {kind}" for kind, count in left_out.items())
        hint = next((words for kind, words in INSTEAD.items() if f"ending {kind}" in left_out), "")
        raise UserError(
            f"no images are under {printable(str(root))}{f' (there are {there})' if there else ''}; "
            f"it takes {', '.join(sorted(ENDINGS))}, also in sub-folders{hint}"
        )
