"""Pictures of images: conversion to 8 bits, grids, PNG files."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from .files import write_file


def to_float(images: Tensor, device: torch.device, *, channels_last: bool = False) -> Tensor:
    """uint8 [N, C, H, W] -> [0, 1] in torch's default type (fp32) on the device."""
    x = images.to(device, non_blocking=True).to(torch.get_default_dtype()) / 255
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def to_uint8(x: Tensor) -> Tensor:
    """Images [N, C, H, W], about [0, 1], cut off and rounded -> uint8 on the CPU."""
    return (x.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def grid(images: Tensor, columns: int) -> Tensor:
    """Images [N, C, H, W] uint8 in rows of `columns` -> one picture [H', W', 3] uint8, small images enlarged."""
    scale = max(1, 96 // images.shape[-1])
    images = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    return make_grid(images, nrow=columns, padding=2, pad_value=128).permute(1, 2, 0)


def pairs(images: Tensor, reconstructions: Tensor, columns: int = 8) -> Tensor:
    """Rows of images [N, C, H, W] uint8, each row above its reconstructions -> one picture [H', W', 3] uint8."""
    rows = [part for both in zip(images.split(columns), reconstructions.split(columns)) for part in both]
    return grid(torch.cat(rows), columns)


def save_png(path: Path, picture: Tensor) -> None:
    """Write a picture [H, W, C] uint8, C 1 or 3."""
    pixels = picture.squeeze(-1).numpy()
    write_file(path, lambda temporary: Image.fromarray(pixels).save(temporary, format="PNG"))
