"""Any folder of pictures, or one alone, read as a run's own are: for `encode --pictures` and `score`."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vqprior.configs.commands import OtherPictures
from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data
from vqprior.runtime.chunks import Chunk
from vqprior.runtime.data.decode import Unreadable
from vqprior.runtime.data.picture_files import PACKED, FileReader, walk
from vqprior.runtime.data.record import SKIPPED, note, noted
from vqprior.runtime.data.source import Pictures, counted, printable
from vqprior.runtime.data.split import decoded
from vqprior.runtime.data.threads import pool
from vqprior.runtime.data.transform import central, prepare
from vqprior.runtime.files import write_file
from vqprior.runtime.processes import say
from vqprior.runtime.unfinished import Unfinished


def data_of(data: Data, settings: OtherPictures) -> Data:
    """The settings of a run's pictures, with what is said of others."""
    return replace(data, range=settings.range or data.range, on_error=settings.on_error or data.on_error)


def pictures_in(root: Path, command: str) -> Pictures:
    """The pictures under a folder, or the one that a file is.

    Raises:
        UserError: it is neither, or has none.
    """
    instead = PACKED.get(root.suffix.lower(), "")
    if root.is_file() and not instead:
        return Pictures(FileReader(root.parent, [root.name]), [printable(root.name)], None)
    if not root.is_dir():
        raise UserError(
            f"--pictures is {str(root)!r}, which is no folder of images, and no image{instead}; give either"
        )
    walked = walk(root)
    left_out = ", ".join(f"{count:,} {kind}" for kind, count in walked.left_out.items())
    if not walked.names:
        there = f" (there are {left_out})" if left_out else ""
        raise UserError(f"no images are under {printable(str(root))}{there}; give another folder, --pictures")
    if left_out:
        count = counted(len(walked.names), "picture")
        say(f"{command}: {count} in {printable(str(root))}; left out: {left_out}")
    return Pictures(FileReader(root, walked.names), [printable(name) for name in walked.names], None)


def content_of(pictures: Pictures) -> str:
    """A digest that changes where a picture does, or is added or taken away; none is read."""
    stamps = hashlib.sha256()
    for index, key in enumerate(pictures.keys):
        try:
            stamp = pictures.reader.stamp(index)
        except OSError as error:
            stamp = (str(error.strerror), 0)
        stamps.update(f"{key}\0{stamp}\n".encode())
    return stamps.hexdigest()


def read_chunk(
    pictures: Pictures,
    places: Tensor,
    size: int,
    data: Data,
    listing: Path,
) -> tuple[Tensor, Tensor]:
    """Pictures as the run's networks see them, uint8 [size, C, H, W], the last repeated, and which of the n
    could be read, bool [n]; the others are blank, and listed.

    Args:
        places: of the pictures, [n], at most `size`.
        listing: the folder of that list.

    Raises:
        UserError: as `_read`.
    """
    read = lambda place: _read(pictures, place, data, listing)
    seen = [*pool(data.workers).map(read, places.tolist())]
    blank = torch.zeros(data.channels, *data.size, dtype=torch.uint8)
    images = torch.stack([blank if image is None else image for image in seen])
    padded = images[Chunk.of(torch.arange(len(places)), size).padded]
    return padded, torch.tensor([image is not None for image in seen])


def names_of(pictures: Pictures, readable: np.ndarray, unfinished: Unfinished) -> list[str]:
    """The names of the pictures that could be read, bool [N].

    Raises:
        UserError: there are none.
    """
    names = [key for key, is_sound in zip(pictures.keys, readable, strict=True) if is_sound]
    if not names:
        listing = unfinished.folder / SKIPPED
        raise UserError(f"none of the {counted(len(readable), 'picture')} can be read; {listing} says why")
    return names


def list_left_out(unfinished: Unfinished, command: str) -> None:
    """Put the list of what could not be read, if any, in place of an earlier call's, and say it."""
    out, listing = unfinished.out / SKIPPED, unfinished.folder / SKIPPED
    out.unlink(missing_ok=True)
    if without := noted(listing):
        write_file(out, listing.read_bytes())
        count = counted(len(without), "picture")
        say(f"{command}: {count} left out that could not be read; {out} says why")


def _read(pictures: Pictures, index: int, data: Data, listing: Path) -> Tensor | None:
    """A picture as the run's networks see it, uint8 [C, H, W]; None where it is left out and listed.

    Raises:
        UserError: it cannot be read and data.on_error is `stop`, or it has more than 8 bits and no range.
    """
    try:
        picture = decoded(pictures, index, data)
        where = pictures.reader.where(index)
        if isinstance(picture, np.ndarray) and data.range == "auto":
            raise UserError(
                f"{where} has more than 8 bits, and the run learnt from pictures of 8 bits: say which values "
                "are black and white, --range LOW HIGH"
            )
        try:
            pixels = prepare(picture, data)
        except (UserError, ValueError, OSError, MemoryError) as error:
            raise Unreadable(where, str(error)) from error
    except Unreadable as error:
        if data.on_error == "stop":
            raise UserError(f"{error}; fix it, or go on without it: --on_error skip") from error
        note(listing / SKIPPED, "pictures", pictures.keys[index], error.reason)
        return None
    return central(torch.tensor(pixels)[None], data)[0]
