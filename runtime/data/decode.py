"""From a stored picture to pixels: whatever fails is one message that names the picture and the reason."""

import io
import math
import re
import warnings
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

from vqprior.configs.errors import UserError

from .source import Content

NPY = b"\x93NUMPY"
KINDS = {  # of a pixel, by Pillow's mode; all other modes have 8 bits or less
    "I;16": "16 bits",
    "I;16B": "16 bits",
    "I;16L": "16 bits",
    "I;16N": "16 bits",
    "I": "32 bits",
    "F": "float",
}
UPPER = "the upper 8 of 16 bits"  # of a colour, which are all that Pillow gives
EIGHT = ("8 bits", UPPER)  # kinds of pixels that are read as 8 bits
HEIF = tuple(  # how it begins, from the fifth byte on
    b"ftyp" + brand for brand in b"heic heix heim heis hevc hevx hevm hevs mif1 msf1".split()
)
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how one begins
HEADROOM = 2  # a decoder may reduce a picture to this many times the size that is needed, and no further
DRAFTED = ("JPEG", "MPO")  # formats whose decoder can give a half, a quarter or an eighth of the size
TURNED = (5, 6, 7, 8)  # orientations whose upright picture has width and height exchanged

Decoded = Image.Image | np.ndarray
"""8 bits: a picture of Pillow. Wider: an array [H, W] or [H, W, C] of numbers, masked where transparent."""

# From its limit to twice that, Pillow only warns: such a picture is read. Beyond, it is refused in words
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@cache
def heif_is_there() -> bool:
    """Whether HEIF can be read; if so, Pillow opens it from now on in this process."""
    if find_spec("pillow_heif") is None:
        return False
    import pillow_heif

    pillow_heif.register_heif_opener()
    return True


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


SAYS_ORIENTATION = {"exif", "Raw profile type exif", "XML:com.adobe.xmp"}
"""Where a PNG may say how it is to be turned."""


class Facts(NamedTuple):
    """What the header of a picture says."""

    format: str  # JPEG, PNG, ..., NPY; "array" where it is not encoded
    width: int  # of the upright picture
    height: int
    kind: str  # of a pixel: one of EIGHT, "16 bits", "32 bits", "float"
    several: bool  # frames: they are not counted, which takes minutes for a hostile TIFF


def facts(content: Content | None, where: str, formats: Sequence[str] | None = None) -> Facts:
    """What a picture's header says, without decoding its pixels.

    Args:
        formats: those of Pillow that are tried; all where not given.

    Raises:
        Unreadable: there is no header that can be read.
    """
    if content is None:
        raise Unreadable(where, "it is empty: a null in place of a picture")
    if isinstance(content, np.ndarray):
        return Facts("array", content.shape[1], content.shape[0], "8 bits", False)
    try:
        if content.startswith(NPY):
            (height, width, *_), dtype = _npy_header(content)
            return Facts("NPY", width, height, _kind(dtype), False)
        with _opened(content, formats) as image:
            kind = KINDS.get(image.mode, UPPER if _is_deep(image) else "8 bits")
            several = getattr(image, "is_animated", False)
            return Facts(image.format or "unknown", *_upright(image), kind, several)
    except Exception as error:  # Pillow's plugins and numpy raise anything on damaged files
        raise Unreadable(where, _reason(error, content)) from error


def _opened(content: bytes, formats: Sequence[str] | None) -> Image.Image:
    """A picture of which the header is read."""
    if content[4:12] in HEIF:  # whatever it is called: telephones and their clouds name some IMG_0001.JPG
        heif_is_there()
    return Image.open(io.BytesIO(content), formats=formats)


def _is_deep(image: Image.Image) -> bool:
    """Whether a picture that is not loaded yet is stored in 16 bits a colour, as Pillow's name of how to
    unpack it says (`RGB;16B`, in a tuple with other things in TIFFs; `BGR;16` has 16 bits for all three)."""
    return any(re.search(";16[BLN]", str(tile[-1])) for tile in image.tile)


def _upright(image: Image.Image) -> tuple[int, int]:
    """Width and height of a picture once it is turned as it says, without decoding its pixels."""
    width, height = image.size
    if image.format == "TIFF" or (image.format == "PNG" and not SAYS_ORIENTATION & image.info.keys()):
        return width, height  # Pillow has turned the one; to ask the other decodes it
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) in TURNED
    return (height, width) if turned else (width, height)


def decode(
    content: Content | None,
    where: str,
    *,
    least: tuple[int, int] | None = None,
    formats: Sequence[str] | None = None,
) -> Decoded:
    """The first frame of a picture, upright.

    Args:
        least: height and width that are enough: a JPEG decoder may then give a fraction of the size, at least
            HEADROOM times as much, so that the resize which follows hardly sees a difference.
        formats: as for `facts`.

    Raises:
        Unreadable: for whatever reason, damage and sizes beyond Pillow's limit among them.
    """
    if content is None:
        raise Unreadable(where, "it is empty: a null in place of a picture")
    if isinstance(content, np.ndarray):
        return Image.fromarray(content)
    try:
        if content.startswith(NPY):
            array = _npy(content)
            return Image.fromarray(array) if array.dtype == np.uint8 else _finite(array)
        with _opened(content, formats) as image:
            deep = _is_deep(image)  # first: getexif may load the pixels
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            if least and image.format in DRAFTED:
                height, width = least[::-1] if orientation in TURNED else least
                image.draft(None, (HEADROOM * width, HEADROOM * height))
            image.load()
            # Pillow takes the upper 8 bits of pixels only
            if deep and image.mode == "RGB" and "transparency" in image.info:
                image.info["transparency"] = tuple(value >> 8 for value in image.info["transparency"])
            if image.mode not in KINDS:
                return ImageOps.exif_transpose(image) if orientation != 1 else image
            return _finite(_wide(image))
    except Exception as error:  # as above
        raise Unreadable(where, _reason(error, content)) from error


def _wide(image: Image.Image) -> np.ndarray:
    """Pixels [H, W] of more than 8 bits; those of the transparent value, if one is named, are masked.

    What value is white is not known here, and one put in their place would count where the range is measured.
    """
    array = np.asarray(ImageOps.exif_transpose(image))
    transparent = image.info.get("transparency")
    return np.ma.masked_equal(array, transparent) if isinstance(transparent, int) else array


def _npy(content: bytes) -> np.ndarray:
    """An array of pixels [H, W] or [H, W, C] from the bytes of an .npy file."""
    _npy_header(content)
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if array.dtype == np.bool_:  # a mask, or a picture of black and white
        array = array * np.uint8(255)
    return np.ascontiguousarray(array[:, :, 0] if array.shape[2:] == (1,) else array)


def _npy_header(content: bytes) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array in an .npy file, which is as long as they say.

    Raises:
        ValueError: it is no picture, or cut; numpy's parser raises other things too.
    """
    file = io.BytesIO(content)
    first = np.lib.format.read_magic(file) == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.kind not in "buif" or dtype == np.int8:
        raise ValueError(f"it holds {dtype}; expected bool, uint8, wider whole numbers or floats")
    if len(shape) not in (2, 3) or shape[2:] not in ((), (1,), (3,), (4,)) or min(shape) < 1:
        raise ValueError(f"it has shape {list(shape)}; expected [H, W] or [H, W, C] with C 1, 3 or 4")
    expected, present = math.prod(shape) * dtype.itemsize, len(content) - file.tell()
    if present < expected:
        raise ValueError(f"it is cut: {present:,} bytes of pixels, and its header says {expected:,}")
    return shape, dtype


def _kind(dtype: np.dtype) -> str:
    return "float" if dtype.kind == "f" else f"{8 * dtype.itemsize} bits"


def _finite(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("it holds values that are not finite")
    return array


def _reason(error: Exception, content: bytes) -> str:
    """Why a picture cannot be read, without the memory address that Pillow puts into its message."""
    if not content:
        return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError) and content.startswith(TIFF):
        kinds = "whole numbers of 8 to 32 bits or floats of 32 bits, or as .npy"
        return f"it is a TIFF that is damaged, or of a kind that Pillow does not read; save it in {kinds}"
    if isinstance(error, Image.UnidentifiedImageError) and content[4:12] in HEIF and not heif_is_there():
        return "it is HEIF, whatever its name: pip install pillow-heif"
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not a picture of a known format"
    if isinstance(error, Image.DecompressionBombError):
        size = re.search(r"\((\d+) pixels\)", str(error))
        has = f"it has {int(size[1]):,} pixels" if size else "it is too large"
        return f"{has}, and {2 * Image.MAX_IMAGE_PIXELS:,} are the most that is read; make it smaller first"
    return " ".join(str(error).split()) or type(error).__name__
