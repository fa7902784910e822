"""A small classifier of images: features where no network of weights is at hand, and the judge of samples.

Classification accuracy score: Ravuri and Vinyals 2019, arXiv 1905.10887: train it on samples alone, test it
on real images.

Legend: B images, C channels, H x W their size.
"""

from collections.abc import Callable
from itertools import chain, repeat
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqprior.runtime.loader import Order, batch_positions
from vqprior.runtime.pictures import to_float
from vqprior.runtime.progress import bar
from vqprior.runtime.randomness import hash64, seed_of, uniform
from vqprior.runtime.transfer import onto

SEED = 0  # of all classifiers, of the models without neighbours and of the subsets of KID
RECIPE = 3  # of network and training: classifiers of other recipes, on disk, are trained anew
WIDTHS, FEATURES = (32, 64, 128), 128  # channels of the convolutions, the last of all further ones
SIDE = 4  # height and width of what the linear layers see, at most
BATCH, RATE, DECAY, SHIFT = 128, 8e-3, 0.01, 2
RISING = 0.15  # of the steps, in which the learning rate rises


class Labelled(NamedTuple):
    """Images with classes, to learn from or to be tested on."""

    images: Callable[[Tensor], Tensor]  # indices [n] -> uint8 [n, C, H, W]
    labels: Tensor  # [N] int64


class Classifier(nn.Module):
    """Images [B, C, H, W] in [0, 1] -> logits [B, classes].

    A 4x4 convolution of stride two, then 3x3 convolutions and poolings by two until a side is 4 or less, each
    normalised over the batch in training; then two linear layers, of which the first gives the features.
    """

    def __init__(self, channels: int, size: tuple[int, int], classes: int):
        super().__init__()
        width, side = WIDTHS[0], max(1, min(size) // 2)
        strided = nn.Conv2d(channels, width, 4, stride=2, padding=1, bias=False)
        layers: list[nn.Module] = [strided, nn.BatchNorm2d(width), nn.ReLU()]
        for wider in chain(WIDTHS[1:], repeat(WIDTHS[-1])):
            conv = nn.Conv2d(width, wider, 3, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(wider), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
            width, side = wider, -(-side // 2)
            if side <= SIDE:
                break
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(min(SIDE, side)), nn.Flatten())
        self.linear = nn.Linear(width * min(SIDE, side) ** 2, FEATURES)
        self.head = nn.Linear(FEATURES, classes)

    def features(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] -> features [B, 128], each image's of mean 0 and variance 1."""
        return F.layer_norm(self.linear(self.body(x - 0.5)), (FEATURES,))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.features(x)))


def shifted(images: Tensor, seed: int, positions: Tensor) -> Tensor:
    """Images [n, C, H, W], each moved by up to two pixels on each axis, by its place [n] in the order.

    Edges repeat.
    """
    height, width = images.shape[-2:]
    moves = (uniform(hash64(seed, 1, positions[:, None], torch.arange(2))) * (2 * SHIFT + 1)).long()  # [n, 2]
    padded = F.pad(images.float(), (SHIFT,) * 4, mode="replicate")
    pairs = zip(padded, moves.tolist(), strict=True)
    return torch.stack([x[:, i : i + height, j : j + width] for x, (i, j) in pairs]).to(images.dtype)


def rate_at(step: int, steps: int) -> float:
    """The learning rate of a step: it rises in a line to its peak, and falls in a line towards zero."""
    rising = max(1, int(RISING * steps))
    if step < rising:
        return RATE * (step + 1) / rising
    return RATE * (steps - step) / (steps - rising)


def train_classifier(
    data: Labelled,
    shape: tuple[int, int, int],
    classes: int,
    *,
    steps: int,
    seed: int,
    device: torch.device,
) -> Classifier:
    """A classifier after `steps` of AdamW on batches of 128, in fp32 everywhere: a function of data and seed.

    The work of the main process, with a bar.

    Args:
        data: what it learns from; the order of the batches is that of training a stage.
        shape: channels, height and width of an image.
    """
    torch.manual_seed(seed_of(seed, 0))
    model = Classifier(shape[0], shape[1:], classes).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)
    order = Order(len(data.labels), seed)
    for step in bar(range(steps), "classifier", unit="step"):
        optimizer.param_groups[0]["lr"] = rate_at(step, steps)
        positions = batch_positions(step, BATCH, slice(None))
        indices = order.at(positions)
        x = to_float(shifted(data.images(indices), seed, positions), device, channels_last=True)
        optimizer.zero_grad()
        F.cross_entropy(model(x), onto(data.labels[indices], device)).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)
