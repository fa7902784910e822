import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import colour, write_pictures
from vqprior.configs import UserError
from vqprior.configs.schema import Data
from vqprior.runtime.data import load
from vqprior.runtime.data.decode import decode
from vqprior.runtime.data.transform import augment, prepare

SMALL = Data(size=(8, 8), validation=0.2, test=0.2)


def names(split) -> set[str]:
    return {split.pictures.keys[i] for i in split.indices}


def test_folder_with_classes(pictures):
    data = load(replace(SMALL, root=str(pictures)))
    assert data.label_names == ("ant", "bee")
    parts = [names(data.split(name)) for name in ("train", "validation", "test")]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 24 and all(parts)
    assert data.train.images(torch.arange(3)).shape == (3, 3, 8, 8)
    for split in (data.train, data.test):
        assert [
            split.pictures.keys[i].startswith("bee") for i in split.indices
        ] == split.labels.bool().tolist()


def test_flat_folder_is_unconditional(tmp_path):
    data = load(replace(SMALL, root=str(write_pictures(tmp_path / "flat", classes=()))))
    assert data.label_names == () and data.train.labels is None


def test_new_pictures_move_no_old_one_between_splits(pictures):
    before = load(replace(SMALL, root=str(pictures)))
    for index in range(100, 130):
        colour(index).save(pictures / "ant" / f"picture{index}.png")
    after = load(replace(SMALL, root=str(pictures)))
    assert len(after.train) > len(before.train)
    for name in ("train", "validation", "test"):
        assert names(before.split(name)) <= names(after.split(name))
    assert before.fingerprint != after.fingerprint


def test_train_and_val_folders_are_used_as_they_are(tmp_path):
    write_pictures(tmp_path / "train", 20)
    write_pictures(tmp_path / "val", 6)
    data = load(replace(SMALL, root=str(tmp_path)))
    assert len(data.validation) == 6 and len(data.train) + len(data.test) == 20


def test_labels_can_be_left_out(pictures):
    data = load(replace(SMALL, root=str(pictures), labels=False))
    assert data.label_names == () and data.test.labels is None


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_picture_becomes_uint8(mode, channels):
    if mode == "I;16":
        image = np.full((9, 13), 65535 // 2, dtype=np.uint16)
    else:
        image = Image.new("RGB", (13, 9), (128, 128, 128)).convert(mode)
    pixels = prepare(image, Data(size=(6, 4), channels=channels, range=(0, 65535)))
    assert pixels.shape == (channels, 6, 4) and pixels.dtype == np.uint8
    assert abs(pixels.astype(float).mean() - (128 if mode != "1" else pixels.mean())) < 3


def test_resize_covers_and_crops_the_middle():
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 255  # the central square is white
    assert prepare(Image.fromarray(wide), Data(size=(10, 10))).min() == 255
    framed = np.zeros((30, 30, 3), dtype=np.uint8)
    framed[10:20, 10:20] = 255
    assert prepare(Image.fromarray(framed), Data(size=(5, 5), crop=10)).min() == 255


def test_upright_by_exif():
    image = Image.fromarray(np.vstack([np.full((4, 4, 3), 255, np.uint8), np.zeros((4, 4, 3), np.uint8)]))
    image.getexif()[0x0112] = 3  # upside down
    file = io.BytesIO()
    image.save(file, format="PNG", exif=image.getexif())
    pixels = prepare(decode(file.getvalue(), "it"), Data(size=(8, 4)))
    assert pixels[:, 0].max() == 0 and pixels[:, -1].min() == 255


def test_augmentation_is_a_window_or_its_mirror_by_seed_and_position():
    data = Data(size=(4, 4), channels=1, margin=3, flip=True)
    canvas = torch.arange(49, dtype=torch.uint8).view(1, 1, 7, 7).repeat(64, 1, 1, 1)
    positions = torch.arange(64)
    windows = augment(canvas, data, 1, positions)
    seen = set()
    for window in windows[:, 0]:
        flipped = bool(window[0, 0] > window[0, 1])
        top, left = divmod(int(window.min()), 7)
        expected = canvas[0, 0, top : top + 4, left : left + 4]
        assert torch.equal(window, expected.flip(1) if flipped else expected)
        seen.add((top, left, flipped))
    assert len(seen) > 20  # of 32
    assert torch.equal(augment(canvas[5:9], data, 1, positions[5:9]), windows[5:9])
    assert not torch.equal(augment(canvas, data, 2, positions), windows)


def test_evaluation_sees_the_central_window(pictures):
    data = replace(SMALL, root=str(pictures), margin=2)
    split = load(data).test
    assert torch.equal(split.images(torch.arange(2)), split.canvas(torch.arange(2))[:, :, 1:9, 1:9])


def test_parquet_in_the_hugging_face_layout(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    for name, count in (("train", 20), ("test", 4)):
        rows = {"img": [colour(i) for i in range(count)], "label": [i % 2 for i in range(count)]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(
            tmp_path / f"{name}-00000-of-00001.parquet"
        )
    data = load(Data(source="parquet", root=str(tmp_path), size=(12, 10), validation=0.2))
    assert data.label_names == ("cat", "dog") and len(data.test) == 4
    assert torch.equal(
        data.test.images(torch.tensor([3]))[0],
        torch.from_numpy(np.asarray(colour(3)).copy()).permute(2, 0, 1),
    )
    assert data.test.labels.tolist() == [0, 1, 0, 1]


def test_torchvision_sets_are_read_where_they_lie(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", 50), ("t10k", 10)):
        images = np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        head = b"\x00\x00\x08\x03" + b"".join(n.to_bytes(4, "big") for n in images.shape)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        labels = bytes(i % 10 for i in range(count))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(
            b"\x00\x00\x08\x01" + count.to_bytes(4, "big") + labels
        )
    data = load(Data(source="mnist", root=str(tmp_path), size=(28, 28), channels=1, validation=0.2))
    assert len(data.test) == 10 and len(data.train) + len(data.validation) == 50
    assert torch.equal(data.test.images(torch.tensor([9]))[0, 0], torch.from_numpy(images[9]))
    assert data.label_names[:2] == ("0", "1")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: None, "not a folder"),
        (lambda root: root.mkdir(), "no images"),
        (lambda root: (write_pictures(root), colour(0).save(root / "top.png")), "two layouts"),
        (lambda root: (write_pictures(root / "train"), write_pictures(root / "test", 4, ("wasp",))), "wasp"),
        (
            lambda root: (write_pictures(root), (root / "ant" / "bad.png").write_bytes(b"\x89PNG no")),
            "bad.png",
        ),
        (lambda root: write_pictures(root, 1, ()), "of 1 picture none falls into"),
        (
            lambda root: (write_pictures(root / "train", 3, ()), write_pictures(root / "test", 4, ())),
            "into the validation split; add pictures, or cut another share: --data.validation 0.[34]$",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path, make, words):
    make(tmp_path / "pictures")
    with pytest.raises(UserError, match=words):
        load(replace(SMALL, root=str(tmp_path / "pictures")))


def test_a_margin_pads_small_pictures_by_their_edge_and_cuts_large_ones():
    small = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))
    data = Data(size=(4, 4), channels=1, margin=2)
    padded = prepare(small, data)[0]
    assert padded.shape == (6, 6) and np.array_equal(padded[1:5, 1:5], np.asarray(small))
    assert (padded[0] == padded[1]).all() and (padded[:, -1] == padded[:, -2]).all()
    large = Image.fromarray(np.arange(36, dtype=np.uint8).reshape(6, 6))
    assert np.array_equal(prepare(large, data)[0], np.asarray(large))
