"""A small classifier of images: features where no network of weights is at hand, and the judge of samples.

Classification accuracy score: Ravuri and Vinyals 2019, arXiv 1905.10887: train it on samples alone, test it
on real images. How it is trained is in stage1_vqvae/classification.py.

Legend: B images, C channels, H x W their size.
"""

from itertools import chain, repeat

import torch.nn.functional as F
from torch import Tensor, nn

SEED = 0  # of all classifiers, of the models without neighbours and of the subsets of KID
RECIPE = 3  # of network and training: classifiers of other recipes, on disk, are trained anew
WIDTHS, FEATURES = (32, 64, 128), 128  # channels of the convolutions, the last of all further ones
SIDE = 4  # height and width of what the linear layers see, at most


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
