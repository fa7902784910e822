"""What a user hands in from Python, checked, as the tensors that the networks take.

Legend: N images, C channels, H x W their size, h x w the code map, K codes.
"""

from collections.abc import Sequence
from reprlib import repr as shortly
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.runtime.codes import Codes, Level, in_words
from vqprior.stage1_vqvae.vqvae import VQVAE

from .choice import Setting

Number = Sequence[float] | float
Arrays = np.ndarray | tuple[np.ndarray, ...]
"""Codes int64 [N, h, w] of the one level, or of each of several, coarsest first."""


def per_image(name: str, given: float | Sequence[float], count: int) -> Setting:
    """What a user gives for `count` images, one number or one for each, as a `Setting` on the CPU.

    Raises:
        UserError: these are no numbers, or of another count.
    """
    whole, values = name == "top_k", _numbers(given)
    fits = values.dtype.kind in ("iu" if whole else "iuf") and values.shape in ((), (count,))
    if not fits or (whole and (values > np.iinfo(np.int64).max).any()):
        found = shortly(given) if values.ndim == 0 else f"{values.dtype} of shape {values.shape}"
        kind = "whole number" if whole else "number"
        raise UserError(f"{name} is {found} for {count} images; it takes one {kind}, or one for each image")
    if values.ndim == 0:
        return int(values) if whole else float(values)
    with np.errstate(over="ignore"):  # infinite in fp32, and refused as that
        return torch.from_numpy(values.astype(np.int64 if whole else np.float32))


def _numbers(given: Any) -> np.ndarray:
    """Numbers, tensors on any device, or lists of them, as an array; what is no array as one of one object,
    without axes."""
    try:
        each = [*map(_of_tensor, given)] if isinstance(given, list | tuple) else _of_tensor(given)
        return np.asarray(each)
    except (TypeError, ValueError, RuntimeError):  # such as lists of several lengths in one
        return np.array(None)


def _of_tensor(given: Any) -> Any:
    """A tensor as an array, of bf16, which NumPy has not, as one of fp32; what is no tensor as it is."""
    if not isinstance(given, Tensor):
        return given
    tensor = given.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def unwrapped(given: Any) -> Any:
    """The number in an array or tensor without axes; anything else as it is."""
    without_axes = isinstance(given, np.ndarray | Tensor) and given.ndim == 0
    return given.item() if without_axes else given


def as_tensor(given: np.ndarray | Tensor) -> Tensor:
    """An array or tensor as a tensor on the CPU.

    Raises:
        UserError: it holds something else than numbers, or rows of several lengths.
    """
    if isinstance(given, Tensor):
        return given.detach().cpu()
    try:
        array = np.asarray(given)
        native = array.dtype.newbyteorder("=")
        return torch.from_numpy(array.astype(native, order="C"))  # a copy: flipped ones have strides below 0
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"got {type(given).__name__}, which is not an array of numbers ({error})") from error


def described(array: Tensor) -> str:
    """Type and shape, in words."""
    return f"{str(array.dtype).removeprefix('torch.')} {list(array.shape)}"


def as_images(given: np.ndarray | Tensor, vqvae: VQVAE) -> Tensor:
    """Images uint8 [N, H, W, C] of the size that the VQ-VAE takes, as [N, C, H, W].

    Raises:
        UserError: they are of another shape or type, or there are none.
    """
    array, (height, width) = as_tensor(given), vqvae.image_size
    fits = array.ndim == 4 and len(array) > 0 and array.shape[1:] == (height, width, vqvae.channels)
    if array.dtype != torch.uint8 or not fits:
        expected = f"uint8 [N, {height}, {width}, {vqvae.channels}], black 0 and white 255"
        raise UserError(f"got images {described(array)}; this run takes {expected}")
    return array.permute(0, 3, 1, 2)


def as_mask(given: np.ndarray | Tensor, vqvae: VQVAE) -> Tensor:
    """A mask bool [H, W] of the size that the VQ-VAE takes.

    Raises:
        UserError: it is of another shape or type.
    """
    mask = as_tensor(given)
    if mask.dtype != torch.bool or mask.shape != vqvae.image_size:
        expected = f"bool {list(vqvae.image_size)}, true where a pixel is hidden"
        raise UserError(f"got a mask {described(mask)}; it takes {expected}")
    return mask


def as_codes(given: Arrays | Sequence[Tensor], levels: Sequence[Level]) -> Codes:
    """Codes of each level: integers [N, h, w] in [0, K), of one level an array or a tuple of one, of several
    as many arrays.

    Raises:
        UserError: they are of another shape, type, range or count, or there are none.
    """
    arrays = [*given] if has_levels(given, levels) else [given]
    if len(arrays) != len(levels):
        expected = f"{len(levels)}, coarsest first" if len(levels) > 1 else "one, not a list"
        raise UserError(f"got {len(arrays)} arrays of codes; this run takes {expected}: {in_words(levels)}")
    codes = tuple(_of_level(array, level) for array, level in zip(arrays, levels, strict=True))
    if len({len(of_level) for of_level in codes}) > 1:
        counts = ", ".join(str(len(of_level)) for of_level in codes)
        raise UserError(f"got codes of {counts} images; each level takes those of the same images")
    return codes


def has_levels(given: Any, levels: Sequence[Level]) -> bool:
    """Whether what is given for codes is one thing a level; a list may also be the one array itself."""
    return isinstance(given, tuple) or (isinstance(given, list) and len(levels) > 1)


def _of_level(given: np.ndarray | Tensor, level: Level) -> Tensor:
    """Codes [N, h, w] int64 of one level; raises as `as_codes`."""
    array, (h, w), K = as_tensor(given), level.size, level.K
    whole = not array.is_floating_point() and not array.is_complex() and array.dtype != torch.bool
    if not whole or array.ndim != 3 or array.shape[1:] != level.size or not len(array):
        raise UserError(f"got {described(array)}; codes are integers [N, {h}, {w}] from 0 to {K - 1}")
    codes = array.long()
    if codes.min() < 0 or codes.max() >= K:
        raise UserError(
            f"the codes are from {codes.min()} to {codes.max()}; those of this run are from 0 to {K - 1}"
        )
    return codes


def as_arrays(codes: Codes) -> Arrays:
    """Codes as users get them: an array of one level, a tuple of arrays of several."""
    arrays = tuple(of_level.numpy() for of_level in codes)
    return arrays if len(arrays) > 1 else arrays[0]


def as_levels(arrays: Arrays) -> tuple[np.ndarray, ...]:
    """The arrays of all levels, of one level a tuple of one."""
    return arrays if isinstance(arrays, tuple) else (arrays,)


def by_level(name: str, arrays: Arrays) -> dict[str, np.ndarray]:
    """The arrays as files name them: of one level by the name, of several with the level's number behind."""
    of_levels = as_levels(arrays)
    return dict(zip(numbered(name, len(of_levels)), of_levels, strict=True))


def numbered(name: str, levels: int) -> list[str]:
    """The name of what each level has: with its number, where there are several."""
    return [f"{name}{level}" for level in range(levels)] if levels > 1 else [name]
