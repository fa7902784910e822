"""Parquet in the Hugging Face layout: local files, or the name of a data set on the hub, read through `datasets`."""

from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data

from .source import Pictures, Source

IMAGE_COLUMNS = ("image", "img", "picture", "jpg", "png")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "cls")
SPLITS = {"train": ("train",), "test": ("test", "validation", "valid", "val")}


@dataclass(frozen=True)
class ColumnReader:
    """Pictures in the image column of a Hugging Face data set."""

    dataset: Any
    column: str

    def content(self, index: int) -> bytes:
        return self.dataset[index][self.column]["bytes"]

    def where(self, index: int) -> str:
        return f"row {index} of column {self.column!r}"

    def stamp(self, index: int) -> tuple[int, int]:
        return len(self.content(index)), 0


def _local_files(root: str) -> dict[str, list[str]]:
    """Parquet files by split, told by the word in their names; {} where `root` names none."""
    files = sorted(glob(str(Path(root) / "**" / "*.parquet"), recursive=True) if Path(root).is_dir() else glob(root))
    files = [file for file in files if file.endswith(".parquet")]
    by_split = {
        split: [file for file in files if any(Path(file).name.startswith(word) for word in words)]
        for split, words in SPLITS.items()
    }
    if files and not by_split["train"]:
        by_split = {"train": [file for file in files if file not in by_split["test"]], "test": by_split["test"]}
    return {split: found for split, found in by_split.items() if found}


def _open(root: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UserError("data.source parquet reads through the package datasets: pip install 'vqprior[data]'") from error
    files = _local_files(root)
    if not files and (Path(root).exists() or "*" in root or root.endswith(".parquet")):
        raise UserError(f"no .parquet files are at data.root ({root!r}); give a folder, a pattern, or a hub name")
    try:
        return datasets.load_dataset("parquet", data_files=files) if files else datasets.load_dataset(root)
    except Exception as error:  # what a network, a hub or a damaged file may answer
        raise UserError(
            f"data.root {root!r} is neither local Parquet files nor a data set that the hub gives ({error})"
        ) from error


def _column(dataset: Any, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in dataset.column_names), None)


def _labels(dataset: Any, column: str, label_names: list[str] | None) -> tuple[np.ndarray, list[str]]:
    """Labels [N] int64 and their names; words become numbers in the order of the alphabet."""
    values = np.asarray(dataset[column])
    names = getattr(dataset.features[column], "names", None) or label_names
    if values.dtype.kind in "iu":
        return values.astype(np.int64), list(names or (str(i) for i in range(int(values.max()) + 1)))
    names = names or sorted({str(value) for value in values})
    numbers = {name: number for number, name in enumerate(names)}
    return np.array([numbers.get(str(value), -1) for value in values], dtype=np.int64), names


def load(data: Data) -> Source:
    """The pictures and, where there is such a column, the labels."""
    opened = _open(data.root)
    found = {split: next((opened[word] for word in words if word in opened), None) for split, words in SPLITS.items()}
    if found["train"] is None:
        raise UserError(f"data.root {data.root!r} has no train split; it has {', '.join(opened)}")
    import datasets

    splits: list[Pictures | None] = []
    label_names: list[str] = []
    for split, dataset in found.items():
        if dataset is None:
            splits.append(None)
            continue
        image, label = _column(dataset, IMAGE_COLUMNS), _column(dataset, LABEL_COLUMNS) if data.labels else None
        if image is None:
            raise UserError(f"no image column in {data.root!r}: it has {', '.join(dataset.column_names)}; rename one to image")
        labels = None
        if label is not None and (split == "train" or label_names):
            labels, label_names = _labels(dataset, label, label_names or None)
        if (label_names and labels is None) or (
            labels is not None and not 0 <= labels.min() <= labels.max() < len(label_names)
        ):
            if split == "train":
                raise UserError(f"the column {label!r} of the train split in {data.root!r} has labels without a name")
            splits.append(None)  # a test split whose labels are hidden: cut one from train
            continue
        dataset = dataset.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        splits.append(Pictures(ColumnReader(dataset, image), [str(i) for i in range(len(dataset))], labels))
    return Source(splits[0], splits[1], tuple(label_names))
