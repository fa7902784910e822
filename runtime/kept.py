"""Files that are a function of settings: made once, and kept until the name is wanted for others.

For work that is made in parts, of which a killed call leaves those that are done, see `unfinished.py`.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import TEMPORARY, sync_file

DIGITS = 10  # of a digest in a name


def digest(settings: dict[str, Any]) -> str:
    """Ten hexadecimal digits that are a function of settings, in whatever order they come."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:DIGITS]


@dataclass(frozen=True)
class Kept:
    """The file FOLDER/NAME-DIGEST.SUFFIX; where it is, it is whole, and of these settings."""

    folder: Path
    name: str
    suffix: str
    settings: dict[str, Any]  # all that the content is a function of

    @property
    def path(self) -> Path:
        """Where the content is once it is made."""
        return self.folder / f"{self.name}-{digest(self.settings)}{self.suffix}"

    @property
    def unfinished(self) -> Path:
        """Where it is made; it takes its name when it is whole."""
        return self.path.with_name(self.path.name + TEMPORARY)

    def make_room(self) -> None:
        """Delete what was kept, or begun, under this name."""
        for suffix in (self.suffix, self.suffix + TEMPORARY):
            for old in self.folder.glob(f"{self.name}-{'?' * DIGITS}{suffix}"):
                old.unlink()

    def finish(self) -> None:
        """The unfinished file is whole: onto the disk with it, and give it its name."""
        sync_file(self.unfinished)
        self.unfinished.replace(self.path)
