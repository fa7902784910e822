"""How different two pictures look: a distance of what a network sees in them.

The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (LPIPS), Zhang et al. 2018,
https://arxiv.org/abs/1801.03924.

The network is none of stage one's modules, and is never trained along: it has no place in a checkpoint, in an
average, or in an optimizer, and `train()` of the model does not reach it. A checkpoint keeps its fingerprint.
Where its weights come from is in `perceptual_weights.py`.

Legend: B images, C channels, H x W their size, L stages of the network, c channels of a stage.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .quantizers.terms import total

WIDTHS, GROUP = (16, 32, 64, 128), 8  # channels of its stages, and of what is normalised together
SMALL = 1e-10  # of a squared length: the slope of a length at zero is infinite

Stages = Callable[[Tensor], Sequence[Tensor]]
"""Images [B, C, H, W] in [0, 1] -> what each of the L stages of a network sees, [B, c, h, w]."""


class ClassifierStages(nn.Module):
    """Images [B, C, H, W] in [0, 1] -> logits [B, classes], by stages of two 3x3 convolutions (the first
    has one), each at half the size of the one before.

    Nothing is normalised over the batch, and it has neither the network nor the seed of the classifier that
    `evaluate` measures distances with (evaluation/classifier.py): what was trained to look right to one is
    judged by another.
    """

    def __init__(self, channels: int, classes: int):
        super().__init__()

        def convolution(before: int, width: int) -> list[nn.Module]:
            conv = nn.Conv2d(before, width, 3, padding=1, bias=False)
            return [conv, nn.GroupNorm(width // GROUP, width), nn.ReLU()]

        first = nn.Sequential(*convolution(channels, WIDTHS[0]))
        wider = (nn.Sequential(*convolution(a, b), *convolution(b, b)) for a, b in pairwise(WIDTHS))
        self.parts = nn.ModuleList([first, *wider])
        self.head = nn.Linear(WIDTHS[-1], classes)

    def stages(self, x: Tensor) -> list[Tensor]:
        """What each stage sees."""
        x, seen = x - 0.5, []
        for index, part in enumerate(self.parts):
            x = part(F.avg_pool2d(x, 2, ceil_mode=True) if index else x)
            seen.append(x)
        return seen

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(x)[-1].mean((2, 3)))


class VGGStages(nn.Module):
    """Images [B, C, H, W] in [0, 1] -> the last activation of each of VGG-16's five stages (arXiv 1409.1556);
    grey ones are taken for colour."""

    LAYERS = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")

    def __init__(self):
        from torchvision.models.vgg import make_layers

        super().__init__()
        self.features = make_layers([*self.LAYERS])
        # LPIPS's own mean and deviation, of values on [-1, 1]
        mean, deviation = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        self.register_buffer("mean", mean.view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", deviation.view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        x, seen = (2 * x - 1 - self.mean) / self.deviation, []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                seen.append(x)
            x = layer(x)
        return seen


class Perceptual:
    """The distance of LPIPS, Equation 1, in the features of a network.

        d(x, y) = sum_l  mean_hw  sum_c  w_lc (f_l(x)_chw - f_l(y)_chw)^2

    with the features f_l of each place of unit length over the channels.

    Args:
        stages: gives the features.
        heads: w_l, [c, 1, 1] for each of the L stages; without them all weights are 1.
        fingerprint: of all that was learnt.
    """

    def __init__(self, stages: Stages, heads: Sequence[Tensor] | None, fingerprint: str):
        self.stages, self.heads, self.fingerprint = stages, heads, fingerprint

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """[B] distances of images [B, C, H, W] in [0, 1]; in at least fp32, under autocast too."""
        with torch.autocast(x.device.type, enabled=False):
            f, g = self.stages(x), self.stages(y)
            return total(map(_distance, f, g, self.heads or [None] * len(f)))


def _distance(f: Tensor, g: Tensor, w: Tensor | None) -> Tensor:
    """[B] of features [B, c, h, w] of one stage, with weights [c, 1, 1] where there are any.

    The square is multiplied out: sums over the channels are all that is made of the maps, a fifth of the time
    of their differences on a CPU.
    """
    dot = lambda a, b: (a * b).sum(1)  # [B, h, w]
    plain = dot(f, f), dot(g, g), dot(f, g)
    ff, gg, fg = plain if w is None else (dot(w * f, f), dot(w * g, g), dot(w * f, g))
    a, b = plain[0] + SMALL, plain[1] + SMALL
    return (ff / a + gg / b - 2 * fg * (a * b).rsqrt()).mean((1, 2))
