"""torchvision's data sets by name: used where they lie under data.root, downloaded where there is a network.

MNIST and FashionMNIST are read here, raw or packed by any gzip: torchvision wants the very bytes of its own
download, which those of a Linux distribution are not.
"""

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data

from .picture_files import FileReader
from .source import Pictures, Source, explicit_roots, from_arrays

IDX = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
IDX_FILES = (
    *("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    *("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)


def load(data: Data) -> Source:
    """MNIST, FashionMNIST or CIFAR-10 with their classes; CelebA without (it has attributes, not classes).

    Raises:
        UserError: the files are not there and cannot be downloaded, or are damaged.
    """
    explicit_roots(data)
    if data.source in IDX:
        return _load_idx(data)
    if data.source == "celeba":
        splits = []
        for split in ("train", "test"):
            dataset = _open("CelebA", data.root, split=split, target_type=[])
            folder = Path(data.root) / dataset.base_folder / "img_align_celeba"
            splits.append(Pictures(FileReader(folder, dataset.filename), dataset.filename, None))
        return Source(*splits, label_names=(), layout="CelebA as torchvision has it")
    train, test = (_open("CIFAR10", data.root, train=train) for train in (True, False))
    arrays = [from_arrays(np.asarray(split.data), np.asarray(split.targets)) for split in (train, test)]
    return Source(*arrays, label_names=tuple(train.classes), layout="CIFAR-10 as torchvision has it")


def _open(name: str, root: str, **split: Any) -> Any:
    """A data set of torchvision under `root`, or after a download; a clear message where neither works."""
    from torchvision import datasets  # here: its import takes a second

    dataset = getattr(datasets, name)
    try:
        return dataset(root, download=False, **split)
    except RuntimeError:  # torchvision's way to say: not there, or not whole
        pass
    try:
        return dataset(root, download=True, **split)
    except Exception as error:  # a network can fail in many ways
        raise UserError(
            f"{name} is not under data.root ({root!r}) and its download failed ({error}). "
            "Download it where there is a network and give its folder: --data.root FOLDER (torchvision's "
            "layout)"
        ) from error


def _load_idx(data: Data) -> Source:
    name, root = IDX[data.source], Path(data.root)
    folders = (root / name / "raw", root / name, root / "raw", root)
    folder = next((path for path in folders if any(_idx_file(path, file) for file in IDX_FILES)), None)
    if folder is None:
        for train in (True, False):
            _open(name, data.root, train=train)
        folder = folders[0]
    if missing := [file for file in IDX_FILES if _idx_file(folder, file) is None]:
        raise UserError(
            f"{folder} has some files of {name} and lacks {', '.join(missing)} (raw, or with .gz): copy them "
            "there too"
        )
    images, labels, test_images, test_labels = (_read_idx(_idx_file(folder, file)) for file in IDX_FILES)
    for split, pictures, numbers in (("train", images, labels), ("t10k", test_images, test_labels)):
        if (
            pictures.ndim != 3
            or numbers.ndim != 1
            or len(pictures) != len(numbers)
            or numbers.max(initial=0) > 9
        ):
            raise UserError(
                f"the {split} files of {name} in {folder} hold pictures {list(pictures.shape)} and labels "
                f"{list(numbers.shape)} up to {numbers.max(initial=0)}; expected [N, height, width] and [N] "
                "up to 9: copy them again"
            )
    names = FASHION if data.source == "fashion_mnist" else tuple(str(digit) for digit in range(10))
    layout = f"the files of {name} in {folder}"
    return Source(from_arrays(images, labels), from_arrays(test_images, test_labels), names, layout=layout)


def _idx_file(folder: Path, name: str) -> Path | None:
    """A raw file of MNIST's, else a packed one; None without."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read_idx(path: Path) -> np.ndarray:
    """An array of uint8 in the format idx: 0 0 8, the number of axes, sizes as big-endian int32, values.

    Raises:
        UserError: the file is damaged.
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}); copy it again") from error
    axes = content[3] if len(content) > 3 and content[:3] == b"\0\0\x08" else 0
    start = 4 + 4 * axes
    if not 1 <= axes <= 3 or len(content) < start:
        raise UserError(
            f"{path} is damaged: it begins with {content[:4].hex(' ')}, expected 00 00 08 and 1 or 3 axes"
        )
    shape = np.frombuffer(content, ">i4", axes, offset=4).astype(np.int64)
    if len(content) - start != shape.prod():
        raise UserError(
            f"{path} is damaged: its head says {' x '.join(map(str, shape))} = {shape.prod():,} bytes, and "
            f"{len(content) - start:,} follow; copy it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()
