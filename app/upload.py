"""A visitor's file: read, or refused in words."""

from typing import NamedTuple

from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data
from vqprior.runtime.data.decode import decode, facts
from vqprior.runtime.data.transform import least_size
from vqprior.sampling.complete import prepared

PIXELS = 50_000_000  # of an upload, at most: several visitors share the memory


class Upload(NamedTuple):
    """A visitor's picture."""

    image: Tensor  # uint8 [C, H, W], as the networks see it
    about: str  # what was found and what became of it


def read_upload(content: bytes, name: str, data: Data) -> Upload:
    """A visitor's file as the networks see pictures, cut and resized like the run's.

    Raises:
        UserError: it is empty, damaged, no picture or too large.
    """
    found = facts(content, name)
    if found.width * found.height > PIXELS:
        raise UserError(
            f"{name} has {found.width:,} x {found.height:,} pixels; {PIXELS:,} in all are the most that "
            "this page reads: make it smaller first"
        )
    image = prepared(decode(content, name, least=least_size(data)), data)
    words = [f"{name}: {found.format}, {found.width:,} x {found.height:,} pixels of {found.kind}"]
    height, width = data.size
    if (found.height, found.width) != data.size:
        words.append(f"cut and resized to {width} x {height}")
    if found.frames > 1:
        words.append(f"the first of its {found.frames} frames")
    return Upload(image, ", ".join(words))
