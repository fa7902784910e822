"""Work in parts, which lie in OUT/.unfinished until all are there: a killed call goes on where it was.

For one file that is a function of settings, and needs no parts, see `kept.py`.
"""

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vqprior.configs.errors import UserError

from .files import read_json, refuse_file, write_json


def begin_parts(begun: Path, settings: dict[str, Any], *, inside: str = ".") -> None:
    """Go on with the parts beside the file `begun` if it holds these settings, else delete them and begin.

    Args:
        inside: a folder to make among the parts, at the beginning alone: it may have been moved away since.
    """
    if read_json(begun) != settings:
        shutil.rmtree(begun.parent, ignore_errors=True)
        (begun.parent / inside).mkdir(parents=True)
        write_json(begun, settings)


def refuse_others(out: Path, command: str, records: Iterable[str]) -> None:
    """Refuse a folder of other files: results would lie among them, or in place of one.

    Args:
        records: files of which one is there where this command has written before.

    Raises:
        UserError: there are files in it, and no such record; or it is a file itself.
    """
    refuse_file(out)
    if any((out / record).is_file() for record in records) or not out.is_dir():
        return
    others = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    if others:
        found = f"{out} holds {others[0]!r}{f' and {len(others) - 1:,} others' if others[1:] else ''}"
        raise UserError(
            f"{found}, and nothing that `{command}` wrote; it writes into a folder of its own: give another "
            "one with --out"
        )


@dataclass(frozen=True)
class Unfinished:
    """The parts of one call, and whether they are of its settings."""

    out: Path  # where the results go
    record: str  # the file there that holds the settings, written last
    settings: dict[str, Any]  # as JSON reads them back
    command: str  # what writes it, in words

    @property
    def folder(self) -> Path:
        """Where the parts are."""
        return self.out / ".unfinished"

    @property
    def begun(self) -> Path:
        """The file that holds the settings of the parts."""
        return self.folder / "settings.json"

    def part(self, index: int) -> Path:
        """The file of a part; where it is, the part is done."""
        return self.folder / f"{index:06d}.npy"

    def arrays(self, count: int) -> Iterator[np.ndarray]:
        """The parts 0 to count - 1, each opened when it is its turn."""
        return (np.load(self.part(index), mmap_mode="r") for index in range(count))

    def settled(self, name: str, *, begun: bool = True) -> Any:
        """One setting of the call that was finished here, or was `begun`, if all its others are these; else
        None."""
        for file in (self.out / self.record, *([self.begun] if begun else [])):
            there = read_json(file)
            if isinstance(there, dict) and there | {name: self.settings[name]} == self.settings:
                return there.get(name)
        return None

    def begin(self, inside: str = ".") -> bool:
        """Whether all is done; else makes the folder of the parts, empty if they are of other settings.

        Args:
            inside: a folder to make among the parts.

        Raises:
            UserError: the folder holds what this command did not write.
        """
        refuse_others(self.out, self.command, (self.record, f"{self.folder.name}/{self.begun.name}"))
        if read_json(self.out / self.record) == self.settings:
            shutil.rmtree(self.folder, ignore_errors=True)  # of a call that was killed at its very end
            return True
        begin_parts(self.begun, self.settings, inside=inside)
        return False

    def forget_earlier(self) -> None:
        """From now on, and until `finish`, the results of an earlier call do not count."""
        (self.out / self.record).unlink(missing_ok=True)

    def finish(self) -> None:
        """All results are written: say so, and forget the parts."""
        write_json(self.out / self.record, self.settings)
        shutil.rmtree(self.folder)
