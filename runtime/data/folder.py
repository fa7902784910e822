"""A folder of images: flat, or one sub-folder a class; alone, or with `train` and `test` (or `val`) folders in it.

photos/                 photos/                 photos/
    a.jpg                   cats/a.jpg              train/cats/a.jpg
    b.png                   dogs/b.png              test/cats/c.jpg
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data

from .source import Pictures, Source

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
HELD_OUT = ("test", "val", "validation")


@dataclass(frozen=True)
class FileReader:
    """Pictures in files."""

    root: Path
    names: list[str]

    def content(self, index: int) -> bytes:
        return self._path(index).read_bytes()

    def where(self, index: int) -> str:
        return str(self._path(index))

    def stamp(self, index: int) -> tuple[int, int]:
        found = self._path(index).stat()
        return found.st_size, found.st_mtime_ns

    def _path(self, index: int) -> Path:
        return self.root / self.names[index]


def _list(root: Path) -> list[str]:
    """The image files under a folder, as sorted names relative to it."""
    found = []
    for folder, inner, files in os.walk(root, followlinks=True):
        inner[:] = [name for name in inner if not name.startswith(".")]
        inside = Path(folder).relative_to(root)
        found += [(inside / name).as_posix() for name in files if Path(name).suffix.lower() in ENDINGS and name[0] != "."]
    return sorted(found)


def _class_of(name: str) -> str | None:
    """The sub-folder that a file lies in; None for a file at the top."""
    return name.split("/", 1)[0] if "/" in name else None


def _pictures(root: Path, names: list[str], label_names: list[str]) -> Pictures:
    numbers = {name: number for number, name in enumerate(label_names)}
    labels = np.array([numbers[_class_of(name)] for name in names], dtype=np.int64) if label_names else None
    return Pictures(FileReader(root, names), names, labels)


def load(data: Data) -> Source:
    """The images below data.root."""
    root = Path(data.root)
    if not root.is_dir():
        raise UserError(f"data.root is {data.root!r}, which is no folder. Give your folder of images: --data.root FOLDER")
    held_out = next((root / name for name in HELD_OUT if (root / name).is_dir()), None)
    if (root / "train").is_dir() and held_out:
        roots = [root / "train", held_out]
    elif [path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")] == ["train"]:
        roots = [root / "train"]
    else:
        roots = [root]
    listed = [_list(path) for path in roots]
    for path, names in zip(roots, listed):
        if not names:
            raise UserError(f"no images are under {path}; it takes {', '.join(sorted(ENDINGS))}, also in sub-folders")
    classes = [{_class_of(name) for name in names} for names in listed]
    if not all(None in found for found in classes) and any(None in found for found in classes):
        raise UserError(f"the images of {roots[0]} and {roots[1]} are laid out differently: one flat, one in sub-folders")
    mixed = next((path for path, found in zip(roots, classes) if None in found and len(found) > 1), None)
    if mixed:
        raise UserError(f"{mixed} holds images both at its top and in sub-folders; use one of the two layouts")
    label_names = [] if None in classes[0] else sorted(classes[0])
    if unknown := sorted(set().union(*classes) - {None} - set(label_names)):
        raise UserError(f"{roots[1]} has classes that {roots[0]} lacks: {', '.join(unknown[:5])}")
    if len(label_names) == 1:
        label_names = []  # one sub-folder is a folder, not a class
    splits = [_pictures(path, names, label_names) for path, names in zip(roots, listed)]
    return Source(splits[0], splits[1] if len(splits) > 1 else None, tuple(label_names))
