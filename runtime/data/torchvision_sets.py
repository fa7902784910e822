"""torchvision's data sets by name: used where they lie under data.root, downloaded where there is a network."""

from pathlib import Path
from typing import Any

import numpy as np
from torchvision import datasets

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data

from .folder import FileReader
from .source import Pictures, Source, from_arrays

CLASSES = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST, "cifar10": datasets.CIFAR10}


def _open(name: str, root: str, **split: Any) -> Any:
    """The data set under `root`, or after a download; a clear message where neither works."""
    dataset = {**CLASSES, "celeba": datasets.CelebA}[name]
    try:
        return dataset(root, download=False, **split)
    except RuntimeError:  # torchvision's way to say: not there, or not whole
        pass
    try:
        return dataset(root, download=True, **split)
    except Exception as error:  # a network can fail in many ways
        raise UserError(
            f"{dataset.__name__} is not under data.root ({root!r}) and its download failed ({error}). "
            f"Download it where there is a network and give its folder: --data.root FOLDER (torchvision's layout)"
        ) from error


def load(data: Data) -> Source:
    """MNIST, FashionMNIST or CIFAR-10 with their classes; CelebA without (it has attributes, not classes)."""
    if data.source == "celeba":
        splits = []
        for split in ("train", "test"):
            dataset = _open("celeba", data.root, split=split, target_type=[])
            folder = Path(data.root) / dataset.base_folder / "img_align_celeba"
            splits.append(Pictures(FileReader(folder, dataset.filename), dataset.filename, None))
        return Source(*splits, label_names=())
    train, test = (_open(data.source, data.root, train=train) for train in (True, False))
    names = [str(digit) for digit in range(10)] if data.source == "mnist" else train.classes
    arrays = [from_arrays(np.asarray(split.data), np.asarray(split.targets)) for split in (train, test)]
    return Source(*arrays, label_names=tuple(names))
