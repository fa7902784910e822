"""The rows of the ladder: sets of as many images, from real ones down to uniform codes, each made once and kept on disk.

RUN/evaluation/
    ROW-DIGEST.npy    the images of a row, uint8 [n, C, H, W]; the digest is of all that they depend on
    PART.json         the figures of a part, and what they depend on
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.runtime.files import TEMPORARY, sync_file
from vqprior.runtime.loader import padded
from vqprior.runtime.processes import each_in_turn, on_main
from vqprior.sampling.labels import label_number, listed

Images = Callable[[Tensor], Tensor]
"""indices [n] int64 -> images uint8 [n, C, H, W]."""


def digest(asked: dict[str, Any]) -> str:
    """Ten hexadecimal digits that are a function of settings."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:10]


def read_row(path: Path) -> Images:
    """The images of a row on disk."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return lambda indices: torch.from_numpy(array[indices.numpy()])


def read_archive(
    path: Path,
    shape: tuple[int, int, int],
    label_names: Sequence[str] = (),
) -> tuple[Tensor, Tensor | None]:
    """Images uint8 [N, C, H, W] and labels int64 [N], if there are any, of an archive as `vqprior sample` writes it.

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
        raise UserError(f"{path} is no archive of images: {error}; expected one like samples.npz") from error
    channels, height, width = shape
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (height, width, channels) or len(images) < 2:
        expected = f"at least two, uint8 [N, {height}, {width}, {channels}]"
        raise UserError(f"{path} holds images {images.dtype} {list(images.shape)}; expected {expected}")
    if labels is not None and (labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]):
        found = f"labels {labels.dtype} {list(labels.shape)}"
        raise UserError(f"{path} holds {len(images)} images and {found}; expected one label for each image, a whole number")
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


def keep_row(folder: Path, name: str, asked: dict[str, Any], make: Images, *, count: int, batch: int) -> Images:
    """The images 0 to count-1 that `make` gives, written once; a row of other settings makes room for it.

    Args:
        make: gets `batch` indices at a time, the last repeated where there are fewer; shared out over the processes.

    Raises:
        UserError: an image cannot be made or written.
    """
    path = folder / f"{name}-{digest(asked)}.npy"
    unfinished = path.with_name(path.name + TEMPORARY)
    if on_main(path.is_file):
        return read_row(path)
    shape = make(torch.zeros(batch, dtype=torch.int64)).shape[1:]
    data_begins = on_main(_begin, folder, name, unfinished, (count, *shape))
    size = int(np.prod(shape))

    def write(indices: Tensor) -> None:
        images = make(padded(indices, batch))[: len(indices)]
        with open(unfinished, "r+b") as file:
            file.seek(data_begins + int(indices[0]) * size)
            file.write(images.contiguous().numpy().tobytes())
            file.flush()

    each_in_turn(list(torch.arange(count).split(batch)), write, name)
    on_main(lambda: (sync_file(unfinished), unfinished.replace(path), None)[-1])
    return read_row(path)


def _begin(folder: Path, name: str, path: Path, shape: tuple[int, ...]) -> int:
    """An .npy file of that shape, without its data, and where the data begin; other rows of the name are deleted."""
    for old in [*folder.glob(f"{name}-??????????.npy"), *folder.glob(f"{name}-??????????.npy{TEMPORARY}")]:
        old.unlink()
    with open(path, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        begins = file.tell()
        file.truncate(begins + int(np.prod(shape)))
    return begins
