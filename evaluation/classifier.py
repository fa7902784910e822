"""A small classifier of images: features where no network of weights is at hand, and the judge of samples.

Classification accuracy score: Ravuri and Vinyals 2019, arXiv 1905.10887: train it on samples alone, test it
on real images.

Legend: B images, C channels, H x W their size.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqprior.runtime.loader import Order, batch_positions
from vqprior.runtime.pictures import to_float
from vqprior.runtime.randomness import hash64, seed_of, uniform
from vqprior.runtime.transfer import onto

SEED = 0  # of all classifiers, of the models without neighbours and of the subsets of KID
RECIPE = 2  # of network and training: classifiers of other recipes, on disk, are trained anew
BATCH, RATE, DECAY, SHIFT, WIDTHS, FEATURES = 128, 2e-3, 0.01, 2, (32, 64, 128), 128


class Labelled(NamedTuple):
    """Images with classes, to learn from or to be tested on."""

    images: Callable[[Tensor], Tensor]  # indices [n] -> uint8 [n, C, H, W]
    labels: Tensor  # [N] int64


class Classifier(nn.Module):
    """Images [B, C, H, W] in [0, 1] -> logits [B, classes].

    Two 3x3 convolutions and a pooling by two, until a side is 8 or less; then two linear layers, of which the
    first gives the features.
    """

    def __init__(self, channels: int, size: tuple[int, int], classes: int):
        super().__init__()
        layers: list[nn.Module] = []
        side, level = min(size), 0
        while side > 8 or level == 0:
            width = WIDTHS[min(level, len(WIDTHS) - 1)]
            for channels_in in (channels, width):
                layers += [nn.Conv2d(channels_in, width, 3, padding=1), nn.ReLU()]
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            channels, side, level = width, -(-side // 2), level + 1
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(min(8, side)), nn.Flatten(), nn.Dropout(0.3))
        self.linear = nn.Linear(channels * min(8, side) ** 2, FEATURES)
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

    Args:
        data: what it learns from; the order of the batches is that of training a stage.
        shape: channels, height and width of an image.
    """
    torch.manual_seed(seed_of(seed, 0))
    model = Classifier(shape[0], shape[1:], classes).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)
    order = Order(len(data.labels), seed)
    for step in range(steps):
        torch.manual_seed(seed_of(seed, 1, step))  # of dropout
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / 50) * (1 - step / steps)
        positions = batch_positions(step, BATCH, slice(None))
        indices = order.at(positions)
        x = to_float(shifted(data.images(indices), seed, positions), device, channels_last=True)
        optimizer.zero_grad()
        F.cross_entropy(model(x), onto(data.labels[indices], device)).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)
