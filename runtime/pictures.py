"""Pictures of images: conversion to 8 bits, grids, PNG files."""

from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

from .files import write_file
from .transfer import onto

GREY = 128  # between images, and where the last row has none
USUAL_COLUMNS, MOST_COLUMNS = 8, 16  # of a grid


def to_float(images: Tensor, device: torch.device, *, channels_last: bool = False) -> Tensor:
    """uint8 [N, C, H, W] -> [0, 1] in torch's default type (fp32) on the device."""
    x = onto(images, device).to(torch.get_default_dtype()) / 255
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def to_uint8(x: Tensor) -> Tensor:
    """Images [N, C, H, W], about [0, 1], cut off and rounded -> uint8 on the CPU."""
    return (x.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def columns_of(classes: int) -> int:
    """How many columns a grid has whose pictures are of so many classes in turn, 0 where they have none: a
    column holds one class, and few classes have several columns each, so that the grid is no narrow strip."""
    if not classes:
        return USUAL_COLUMNS
    return min(max(1, USUAL_COLUMNS // classes) * classes, MOST_COLUMNS)


def grid(images: Tensor, columns: int) -> Tensor:
    """Images [N, C, H, W] uint8 in rows of `columns` -> one picture [H', W', 3] uint8, small images
    enlarged."""
    scale = max(1, 96 // images.shape[-1])
    images = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    return tiled(images, columns, padding=2)


def tiled(images: Tensor, columns: int, *, padding: int) -> Tensor:
    """Images [N, C, H, W] uint8 in rows of `columns`, grey lines around each -> one picture [H', W', 3]
    uint8.

    The pixels of `torchvision.utils.make_grid`, whose import would take as long as that of torch; so one
    image alone is the picture.
    """
    if len(images) == 1:
        return rearrange(images.expand(-1, 3, -1, -1), "1 c h w -> h w c")
    columns = min(columns, len(images))
    height, width = images.shape[2:]
    cells = torch.full(
        (-(-len(images) // columns) * columns, 3, padding + height, padding + width), GREY, dtype=torch.uint8
    )
    cells[: len(images), :, padding:, padding:] = images
    picture = rearrange(cells, "(rows columns) c h w -> (rows h) (columns w) c", columns=columns)
    return F.pad(picture, (0, 0, 0, padding, 0, padding), value=GREY)  # the lines on the right and below


def hot(values: Tensor) -> Tensor:
    """Values [N, H, W], 0 to 1 and beyond, from black over red and yellow to white: uint8 [N, 3, H, W]."""
    channels = [(3 * values - step).clamp(0, 1) for step in range(3)]
    return (torch.stack(channels, dim=1) * 255).round().to(torch.uint8)


def beneath(images: Tensor, *made: Tensor, columns: int = 8) -> Tensor:
    """Rows of images [N, C, H, W] uint8, each row above what was made of it, such as reconstructions -> one
    picture [H', W', 3] uint8; what is left of a last row is blank."""
    columns = min(columns, len(images))
    blank = images.new_full((-len(images) % columns, *images.shape[1:]), GREY)
    all_of = (torch.cat([each, blank]).split(columns) for each in (images, *made))
    rows = [part for parts in zip(*all_of, strict=True) for part in parts]
    return grid(torch.cat(rows), columns)


def save_png(path: Path, picture: Tensor) -> None:
    """Write a picture [H, W, C] uint8, C 1 or 3."""
    pixels = picture.squeeze(-1).numpy()
    write_file(path, lambda temporary: Image.fromarray(pixels).save(temporary, format="PNG"))
