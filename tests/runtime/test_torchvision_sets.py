"""MNIST's idx files, where they lie and how they are packed."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.sources import opened, refused, sizes


def write_idx(folder: Path, packed: bool) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 20), ("t10k", 6)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}i", *array.shape)
            content = head + array.tobytes()
            name = f"{prefix}-{kind}-ubyte"
            path = folder / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(content, 1) if packed else content)
    return images


@pytest.mark.parametrize("place", ["FashionMNIST/raw", "raw", "."])
@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read_where_they_lie(tmp_path, place, packed):
    images = write_idx(tmp_path / place, packed)
    source = opened(tmp_path, source="fashion_mnist")
    assert sizes(source) == (20, None, 6) and source.label_names[9] == "Ankle boot"
    assert np.array_equal(source.test.reader.content(5), images[5])
    assert source.test.labels.tolist() == [*range(6)]


def test_damaged_idx_files_are_refused(tmp_path):
    write_idx(tmp_path, packed=False)
    path = tmp_path / "t10k-images-idx3-ubyte"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    refused(tmp_path, str(path), "6 x 28 x 28 = 4,704 bytes, and 4,703 follow", source="mnist")
    path.write_bytes(b"<html>" + content)
    refused(tmp_path, "begins with", source="mnist")
    path.unlink()
    refused(tmp_path, "lacks t10k-images-idx3-ubyte", source="mnist")
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(content)[:-20])
    refused(tmp_path, "damaged", source="mnist")
