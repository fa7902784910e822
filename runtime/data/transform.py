"""From a picture of any size and mode to uint8 [C, H, W], and the augmentation of training."""

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data

from ..randomness import Stream, hash64
from ..transfer import onto
from . import value_range
from .decode import Decoded


def prepare(decoded: Decoded, data: Data) -> np.ndarray:
    """In 8 bits, cut, resized to cover data.size, cropped and converted: uint8 [C, H + m, W + m], margin m.

    A picture large enough is resized to cover the margin too; a smaller one is padded by repeating its edge.
    One of more than 8 bits goes to 8 by data.range; where that is `auto`, by the rule of value_range.py for
    this picture alone.

    Raises:
        UserError: it is smaller than data.crop, or has more than 8 bits and one value and data.range is auto.
    """
    mode = "L" if data.channels == 1 else "RGB"
    image = eight_bits(decoded, data) if isinstance(decoded, np.ndarray) else decoded
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")  # transparent becomes white
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode == "LAB":  # which Pillow converts to RGB alone
        image = image.convert("RGB")
    if image.mode != mode:  # converting to the same mode copies, a tenth of the time for a large PNG
        image = image.convert(mode)
    pixels = placed(image, data)
    pixels = pixels[None] if data.channels == 1 else pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels)


def placed(
    image: Image.Image, data: Data, *, resampling: Image.Resampling = Image.Resampling.BICUBIC
) -> np.ndarray:
    """A picture of any mode cut, resized and cropped as `prepare` does it: [H + m, W + m] or
    [H + m, W + m, C], in its own type; raises as that does of data.crop."""
    height, width = (pixels + data.margin for pixels in data.size)
    if data.crop:
        if min(image.size) < data.crop:
            found = f"it is {image.width}x{image.height}, smaller than data.crop ({data.crop})"
            raise UserError(f"{found}; take a smaller crop, or leave the picture out")
        left, top = (image.width - data.crop) // 2, (image.height - data.crop) // 2
        image = image.crop((left, top, left + data.crop, top + data.crop))
    if image.width < width or image.height < height:
        height, width = data.size
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), method=resampling)
    pixels = np.asarray(image)
    if (height, width) == data.size and data.margin:
        before = data.margin // 2
        around = (before, data.margin - before)
        pixels = np.pad(pixels, (around, around, (0, 0))[: pixels.ndim], mode="edge")
    return pixels


def eight_bits(array: np.ndarray, data: Data) -> Image.Image:
    """An array [H, W] or [H, W, C] of more than 8 bits as a picture of 8.

    LOW of data.range becomes 0, HIGH 255, and what lies beyond is cut off; what is masked becomes white.

    Raises:
        UserError: data.range is `auto`, and it is of one value.
    """
    low, high = value_range.measured([array]) if data.range == "auto" else data.range
    with np.errstate(over="ignore"):  # far beyond the range, which is cut off below
        scaled = (array.astype(np.float64) - low) * (255 / (high - low))
    return Image.fromarray(np.ma.filled(scaled.round().clip(0, 255), 255).astype(np.uint8))


def least_size(data: Data) -> tuple[int, int] | None:
    """Height and width that a decoded picture needs; None with data.crop, which counts whole pixels."""
    return None if data.crop else (data.size[0] + data.margin, data.size[1] + data.margin)


def central(images: Tensor, data: Data) -> Tensor:
    """The middle [N, C, H, W] of pictures held with a margin, [N, C, H + m, W + m]."""
    offset = data.margin // 2
    return images[:, :, offset : offset + data.size[0], offset : offset + data.size[1]]


def augment(images: Tensor, data: Data, seed: int, positions: Tensor) -> Tensor:
    """A random window and mirroring of held pictures: a function of (seed, place in the run's order) alone.

    Args:
        images: [N, C, H + m, W + m] uint8, on any device.
        positions: [N] int64 on the CPU, the places of the pictures in the order of the whole run.

    Returns:
        [N, C, H, W] uint8, where the images are.
    """
    if not data.margin and not data.flip:
        return images
    bits = hash64(seed, Stream.AUGMENTATION, positions)
    places = drawn_windows(bits, data.margin, flip=data.flip)
    if images.device.type != "cpu":
        return gathered(images, onto(places, images.device), data.size)
    height, width = data.size
    windows = np.empty((*images.shape[:2], height, width), dtype=np.uint8)
    # Slice by slice: a picture is a few long copies; one gather over all of them takes ten times as long
    for window, picture, (top, left, mirror) in zip(windows, images.numpy(), places.T.tolist(), strict=True):
        part = picture[:, top : top + height, left : left + width]
        window[:] = part[:, :, ::-1] if mirror else part
    return torch.from_numpy(windows)


def drawn_windows(bits: Tensor, margin: int, *, flip: bool) -> Tensor:
    """Tops, lefts and mirrorings of windows, [3, N] int64, from random bits [N] int64."""
    tops = (bits & 0xFFFF) % (margin + 1)
    lefts = ((bits >> 16) & 0xFFFF) % (margin + 1)
    return torch.stack([tops, lefts, (bits >> 32) & int(flip)])


def gathered(images: Tensor, places: Tensor, size: tuple[int, int]) -> Tensor:
    """Windows [N, C, H, W] of images at these tops, lefts and mirrorings, [3, N]: one gather, for a GPU or
    for a gradient."""
    tops, lefts, mirrored = places[:, :, None]
    height, width = (torch.arange(side, device=images.device) for side in size)
    rows = tops + height  # [N, H]
    columns = lefts + torch.where(mirrored > 0, width.flip(0), width)  # [N, W]
    image, channel = (torch.arange(n, device=images.device) for n in images.shape[:2])
    return images[
        image[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None]
    ]
