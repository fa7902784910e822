"""From a stored picture to pixels: whatever it raises is one message that names the picture and the reason."""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from vqprior.configs.errors import UserError

from .source import Content


class Unreadable(UserError):
    """A picture that cannot be read.

    Args:
        where: the picture, in words.
        reason: why, in words.
    """

    def __init__(self, where: str, reason: str):
        super().__init__(where, reason)
        self.where, self.reason = where, reason

    def __str__(self) -> str:
        return f"{self.where} cannot be read as an image ({self.reason})"


class Facts(NamedTuple):
    """What the header of a picture says."""

    format: str  # JPEG, PNG, ..., NPY; "array" where it is not encoded
    width: int
    height: int
    kind: str  # of a pixel: "8 bits", "16 bits", "32 bits", "float"
    frames: int


def facts(content: Content, where: str) -> Facts:
    """What a picture's header says, without decoding its pixels.

    Raises:
        Unreadable: there is no header that can be read.
    """
    if isinstance(content, np.ndarray):
        return Facts("array", content.shape[1], content.shape[0], "8 bits", 1)
    try:
        with Image.open(io.BytesIO(content)) as image:
            return Facts(image.format or "", *image.size, "8 bits", getattr(image, "n_frames", 1))
    except (OSError, ValueError, SyntaxError) as error:
        raise Unreadable(where, str(error)) from error


def decode(content: Content, where: str, *, least: tuple[int, int] | None = None) -> Image.Image | np.ndarray:
    """The first frame of a picture, upright: a picture of Pillow with 8 bits, or an array of a wider type.

    Args:
        least: height and width that are enough, so that a decoder which can may decode at a fraction of the size.

    Raises:
        Unreadable: for whatever reason.
    """
    if isinstance(content, np.ndarray):
        return Image.fromarray(content)
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return image
    except (OSError, ValueError, SyntaxError) as error:
        raise Unreadable(where, str(error)) from error
