"""What a user hands in from Python, checked, as the tensors that the networks take.

Legend: N images, C channels, H x W their size, h x w the code map, K codes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.stage1_vqvae.vqvae import VQVAE

from .choice import Setting

Number = Sequence[float] | float


def per_image(name: str, given: float | Sequence[float], count: int) -> Setting:
    """What a user gives for `count` images, one number or one for each, as a `Setting` on the CPU.

    Raises:
        UserError: these are no numbers, or of another count.
    """
    kind, kinds, dtype = (
        ("whole number", "iu", np.int64) if name == "top_k" else ("number", "iuf", np.float32)
    )
    try:
        values = np.asarray(given.cpu() if isinstance(given, Tensor) else given)
    except ValueError:  # lists of several lengths in one
        values = np.empty((0, 0))
    if values.dtype.kind not in kinds or values.shape not in ((), (count,)):
        found = given if values.ndim == 0 else f"{values.dtype} of shape {values.shape}"
        raise UserError(f"{name} is {found} for {count} images; it takes one {kind}, or one for each image")
    return values.item() if values.ndim == 0 else torch.from_numpy(values.astype(dtype))


def as_tensor(given: np.ndarray | Tensor) -> Tensor:
    """An array or tensor as a tensor on the CPU.

    Raises:
        UserError: it holds something else than numbers, or rows of several lengths.
    """
    if isinstance(given, Tensor):
        return given.detach().cpu()
    try:
        return torch.tensor(np.asarray(given))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"got {type(given).__name__}, which is no array of numbers ({error})") from error


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


def as_codes(given: np.ndarray | Tensor, map_size: tuple[int, int], K: int) -> Tensor:
    """Codes [N, h, w] int64 in [0, K).

    Raises:
        UserError: they are of another shape, type or range, or there are none.
    """
    array, (h, w) = as_tensor(given), map_size
    whole = not array.is_floating_point() and not array.is_complex() and array.dtype != torch.bool
    if not whole or array.ndim != 3 or array.shape[1:] != map_size or not len(array):
        raise UserError(f"got {described(array)}; codes are integers [N, {h}, {w}] from 0 to {K - 1}")
    codes = array.long()
    if codes.min() < 0 or codes.max() >= K:
        raise UserError(
            f"the codes are from {codes.min()} to {codes.max()}; those of this run are from 0 to {K - 1}"
        )
    return codes
