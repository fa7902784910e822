"""Archives of images: what `vqprior sample` writes, and other projects' samples in the same form."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.runtime.arrays import NOT_READ, member
from vqprior.sampling.labels import label_number, listed


def read_archive(
    path: Path,
    shape: tuple[int, int, int],
    label_names: Sequence[str] = (),
) -> tuple[Tensor, Tensor | None]:
    """Images uint8 [N, C, H, W] and labels int64 [N], if there are any, of an archive like `samples.npz`.

    Takes and raises what `read_labels` does.
    """
    labels = read_labels(path, shape, label_names)
    with _opened(path) as archive:
        images = torch.from_numpy(archive[_name_of_images(archive)])
    return images.permute(0, 3, 1, 2), labels


def read_labels(
    path: Path,
    shape: tuple[int, int, int],
    label_names: Sequence[str] = (),
) -> Tensor | None:
    """The labels int64 [N] of an archive, if there are any; of the images what their head says is checked.

    Args:
        shape: of an image, [C, H, W].
        label_names: the classes that the labels are returned as numbers of. Where the archive names its own
            they are matched by name; else its labels are such numbers already.

    Raises:
        UserError: it cannot be read, or it holds images of another shape, or labels of other classes.
    """
    with _opened(path) as archive:
        size, dtype = _head(archive, _name_of_images(archive))
        labels, own_names = member(archive, "labels"), member(archive, "label_names")
    channels, height, width = shape
    fit = dtype == np.uint8 and len(size) == 4 and size[1:] == (height, width, channels)
    if not fit or size[0] < 2:
        expected = f"at least two, uint8 [N, {height}, {width}, {channels}]"
        raise UserError(f"{path} holds images {dtype} {list(size)}; expected {expected}")
    if labels is not None and (labels.dtype.kind not in "iu" or labels.shape != size[:1]):
        found = f"{size[0]} images and labels {labels.dtype} {list(labels.shape)}"
        raise UserError(f"{path} holds {found}; expected one label for each image, a whole number")
    if labels is None or not label_names or (labels == -1).all():  # -1: as `sample` writes without a class
        return None
    if own_names is not None and len(own_names):
        labels = _by_name(labels, own_names, label_names, path)
    low, high, classes = labels.min(), labels.max(), len(label_names)
    if low < 0 or high >= classes:
        raise UserError(f"{path} holds labels from {low} to {high}; expected 0 to {classes - 1}")
    return torch.from_numpy(labels.astype(np.int64))


@contextmanager
def _opened(path: Path) -> Iterator[NpzFile]:
    """The arrays of an archive; whatever is wrong with it is said in words."""
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, NpzFile):
            raise ValueError("it holds one array without a name")
        with archive:
            yield archive
    except (*NOT_READ, TypeError) as error:  # of a header that is none
        raise UserError(
            f"{path} is not an archive of images: {error}; expected one like samples.npz"
        ) from error


def _name_of_images(archive: NpzFile) -> str:
    return "images" if "images" in archive else "arr_0"


def _head(archive: NpzFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, without reading it."""
    with archive.zip.open(f"{name}.npy") as file:
        first = np.lib.format.read_magic(file) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    return shape, dtype


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
