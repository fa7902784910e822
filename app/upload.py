"""A visitor's file: read, or refused in words."""

from typing import NamedTuple

from PIL import Image
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data
from vqprior.runtime.data.decode import decode, facts, heif_is_there
from vqprior.runtime.data.transform import least_size
from vqprior.sampling.complete import prepared

PIXELS = 50_000_000  # of an upload, at most: several visitors share the memory
FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is read. Pillow knows others: EPS starts Ghostscript, an ICO unpacks its pixels as it is opened."""


class Upload(NamedTuple):
    """A visitor's picture."""

    image: Tensor  # uint8 [C, H, W], as the networks see it
    about: str  # what was found and what became of it


def read_upload(content: bytes, name: str, data: Data) -> Upload:
    """A visitor's file as the networks see pictures, cut and resized like the run's.

    Raises:
        UserError: it is empty, damaged, no picture of such a format or too large, or as `prepared`.
    """
    heif_is_there()
    Image.init()
    formats = [one for one in FORMATS if one in Image.OPEN]
    found = facts(content, name, formats)
    if found.width * found.height > PIXELS:
        raise UserError(
            f"{name} has {found.width:,} x {found.height:,} pixels; {PIXELS:,} in all are the most that "
            "this page reads: make it smaller first"
        )
    photo = decode(content, name, least=least_size(data), formats=formats)
    try:
        image = prepared(photo, data)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    words = [f"{name}: {found.format}, {found.width:,} x {found.height:,} pixels of {found.kind}"]
    height, width = data.size
    if (found.height, found.width) != data.size:
        words.append(f"cut and resized to {width} x {height}")
    if found.several:
        words.append("the first of its frames")
    return Upload(image, ", ".join(words))
