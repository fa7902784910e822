"""Archives of images: what `vqprior sample` writes, and other projects' samples in the same form."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.sampling.labels import label_number, listed


def read_archive(
    path: Path,
    shape: tuple[int, int, int],
    label_names: Sequence[str] = (),
) -> tuple[Tensor, Tensor | None]:
    """Images uint8 [N, C, H, W] and labels int64 [N], if there are any, of an archive like `samples.npz`.

    Args:
        shape: of an image, [C, H, W].
        label_names: the classes that the labels are returned as numbers of. Where the archive names its own
            they are matched by name; else its labels are such numbers already.

    Raises:
        UserError: it cannot be read, or it holds images of another shape, or labels of other classes.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, NpzFile):
            raise ValueError("it holds one array without a name")
        with archive:
            images = archive["images" if "images" in archive else "arr_0"]
            labels, own_names = archive.get("labels"), archive.get("label_names")
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path} is not an archive of images: {error}; expected one like samples.npz"
        ) from error
    channels, height, width = shape
    fit = images.dtype == np.uint8 and images.ndim == 4 and images.shape[1:] == (height, width, channels)
    if not fit or len(images) < 2:
        expected = f"at least two, uint8 [N, {height}, {width}, {channels}]"
        raise UserError(f"{path} holds images {images.dtype} {list(images.shape)}; expected {expected}")
    if labels is not None and (labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]):
        found = f"{len(images)} images and labels {labels.dtype} {list(labels.shape)}"
        raise UserError(f"{path} holds {found}; expected one label for each image, a whole number")
    if labels is not None and (labels == -1).all():  # as `sample` writes where no class was told
        labels = None
    if labels is not None and own_names is not None and len(own_names) and label_names:
        labels = _by_name(labels, own_names, label_names, path)
    numbers = None if labels is None else torch.from_numpy(labels.astype(np.int64))
    return torch.from_numpy(images).permute(0, 3, 1, 2), numbers


def _by_name(labels: np.ndarray, own_names: np.ndarray, label_names: Sequence[str], path: Path) -> np.ndarray:
    """Labels [N] that are numbers of an archive's own classes, as numbers of classes with the same names.

    Raises:
        UserError: there is no class of that name, or no name of that number.
    """
    if own_names.dtype.kind != "U" or own_names.ndim != 1:
        found = f"{own_names.dtype} {list(own_names.shape)}"
        raise UserError(f"{path} holds label_names {found}; expected text, a name a class")
    names = own_names.tolist()
    if labels.min() < 0 or labels.max() >= len(names):
        found = f"labels from {labels.min()} to {labels.max()}"
        raise UserError(f"{path} holds {found}, and {len(names)} label_names")
    unknown = [names[number] for number in np.unique(labels) if names[number] not in label_names]
    if unknown:
        raise UserError(
            f"{path} holds images of the classes {', '.join(unknown[:5])}, which this run does not have; "
            f"its classes are {listed(label_names)}"
        )
    here = [label_number(name, label_names) if name in label_names else -1 for name in names]
    return np.array(here)[labels]
