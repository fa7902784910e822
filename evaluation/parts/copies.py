"""Whether samples are nearer to training images than new real images are, in pixels and in features."""

from collections.abc import Callable

import torch
from torch import Tensor

from vqprior.runtime.pictures import beneath, save_png, to_float
from vqprior.runtime.processes import on_main

from ..features import features_at, features_of
from ..nearest import Points, copy_share, nearest
from ..part import Part, features, row_size, samples
from ..rows import Images
from ..subject import Subject
from ..tables import Figures, Row, Table, list_table

PAGE = 32  # samples shown beside their nearest training images
NOTE = "By chance it would be 1 %. Blur, too, is near to many: look at the pictures first."
ROWS = (
    Row("in pixels", "{pixels[share]:.2%}"),
    Row("in features", "{features[share]:.2%}", "features"),
)


def copies(subject: Subject) -> Figures:
    """The nearest training image of each sample, and of as many test images."""
    batch, count, train = subject.config.inference_batch, subject.n, subject.data.train
    device = subject.networks.device

    # Samples, then test images: the training images are read once for both
    queries = _joined(subject.row("samples"), subject.row("test"), count)
    in_pixels = Points(_pixels(queries, device), 2 * count), Points(_pixels(train.images, device), len(train))
    spaces = {"pixels": in_pixels}
    if subject.has_features:
        network = subject.extractor
        of_train = Points(lambda indices: features_at(network, train.images, indices, batch), len(train))
        spaces["features"] = Points.of(features_of(network, queries, 2 * count, batch)), of_train

    # In each space: how near they are, and a picture of the first samples above their nearest
    figures: Figures = {"images": count, "page": PAGE}
    page = torch.arange(min(PAGE, count))
    for space, (points, references) in spaces.items():
        distances, which = nearest(points, references, device)
        figures[space] = {
            "share": copy_share(distances[:count], distances[count:]),
            "distances": distances[:count][:PAGE].tolist(),
            "nearest": which[:count][:PAGE].tolist(),
        }
        picture = beneath(subject.row("samples")(page), train.images(which[page]))
        on_main(save_png, subject.folder / f"nearest_{space}.png", picture)
    return figures


def _joined(first: Images, second: Images, count: int) -> Images:
    """`count` images, and then others, by ascending indices."""

    def read(indices: Tensor) -> Tensor:
        parts = (first, indices[indices < count]), (second, indices[indices >= count] - count)
        return torch.cat([images(at) for images, at in parts if len(at)])

    return read


def _pixels(images: Images, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Images by their indices [n] as rows [n, C * H * W] of numbers in [0, 1], on the device."""
    return lambda indices: to_float(images(indices), device).flatten(1)


def tables(figures: Figures) -> list[Table]:
    """One list, and the pictures."""
    spaces = [space for space in ("pixels", "features") if space in figures]
    words = "Samples, each row above the nearest training images in {}."
    pictures = tuple((f"nearest_{space}.png", words.format(space)) for space in spaces)
    title = "{images:,} samples: nearer to a training image than 99 % of test images are"
    return [list_table(title, ROWS, figures, note=NOTE, pictures=pictures)]


PART = Part("copies", "Nearest training images", copies, tables, depends_on=(row_size, samples, features))
