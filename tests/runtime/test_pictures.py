"""Grids of images against torchvision's."""

import pytest
import torch
from torchvision.utils import make_grid

from vqprior.runtime.pictures import beneath, columns_of, grid, hot, tiled


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("count", "columns", "padding"), [(1, 4, 2), (2, 1, 1), (3, 8, 2), (7, 3, 1), (12, 4, 2), (9, 8, 0)]
)
def test_tiles_are_those_of_torchvision(count, columns, padding, channels):
    images = torch.randint(0, 256, (count, channels, 5, 7), dtype=torch.uint8)
    expected = make_grid(images, nrow=columns, padding=padding, pad_value=128).permute(1, 2, 0)
    picture = tiled(images, columns, padding=padding)
    assert picture.dtype == torch.uint8 and torch.equal(picture, expected)


def test_small_images_are_enlarged_by_whole_pixels():
    images = torch.arange(4, dtype=torch.uint8).reshape(4, 1, 1, 1) * 50
    picture = grid(images, 2)
    assert picture.shape == (2 * 96 + 3 * 2, 2 * 96 + 3 * 2, 3)
    assert (picture[2:98, 100:196] == 50).all() and (picture[98:100] == 128).all()


def test_large_images_keep_their_size():
    assert grid(torch.zeros(2, 3, 100, 100, dtype=torch.uint8), 2).shape == (104, 206, 3)


def test_hotter_is_lighter_from_black_to_white_and_beyond():
    colours = hot(torch.linspace(-0.5, 1.5, 81)[None, None]).float()[0, :, 0]  # [3, 81]
    light = torch.tensor([0.299, 0.587, 0.114]) @ colours
    assert (light[20:61].diff() > 0).all()
    assert (colours[:, :21] == 0).all() and (colours[:, 60:] == 255).all()


@pytest.mark.parametrize("count", [1, 5, 8, 20])
def test_each_row_stands_above_its_reconstructions(count):
    """The last one, too, which may be short."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1)
    picture = beneath(images, images + 100)
    columns = min(count, 8)
    cells = picture[2::98, 2::98, 0][:, :columns]
    for row in range(-(-count // columns)):
        shown = min(columns, count - row * columns)
        expected = torch.arange(row * columns, row * columns + shown)
        assert cells[2 * row, :shown].tolist() == expected.tolist()
        assert cells[2 * row + 1, :shown].tolist() == (expected + 100).tolist()


@pytest.mark.parametrize(
    ("classes", "columns"),
    [(0, 8), (1, 8), (2, 8), (3, 6), (4, 8), (5, 5), (8, 8), (10, 10), (16, 16), (1000, 16)],
)
def test_a_column_holds_one_class_and_few_classes_make_no_narrow_strip(classes, columns):
    assert columns_of(classes) == columns
    assert not classes or classes > 16 or columns % classes == 0
