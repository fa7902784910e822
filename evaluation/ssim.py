"""Structural similarity of two images: Wang et al. 2004, "Image quality assessment", Equation 13."""

import torch
from torch import Tensor

WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03
NUMBERS = {"cpu": 2**17, "cuda": 2**22}  # of images at once: on a CPU as many as its caches hold


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """SSIM [B] fp64 of images [B, C, H, W] in [0, 1], on their device; 1 for equal images, at least -1.

    A Gaussian window of 11x11 and sigma 1.5, only where it fits into the image, the mean over places and channels, as in
    the authors' code. Images of fewer pixels get the largest odd window that fits. Variances are differences of nearly
    equal numbers, so all is in fp64; where a device has none, the CPU computes it.
    """
    if x.device.type == "mps":
        x, y = x.cpu(), y.cpu()
    images = max(1, NUMBERS.get(x.device.type, NUMBERS["cuda"]) // x[0].numel())
    parts = zip(x.split(images), y.split(images), strict=True)
    return torch.cat([_ssim(one.double(), other.double()) for one, other in parts])


def _ssim(x: Tensor, y: Tensor) -> Tensor:
    """The same of a few images in fp64."""
    line = _line(min(WINDOW, *(side - (side + 1) % 2 for side in x.shape[-2:])))
    mean_x, mean_y = _blurred(x, line), _blurred(y, line)
    variance_x, variance_y = _blurred(x * x, line) - mean_x**2, _blurred(y * y, line) - mean_y**2
    covariance = _blurred(x * y, line) - mean_x * mean_y
    c1, c2 = K1**2, K2**2
    light = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (light * structure).view(len(x), -1).mean(1)


def _line(size: int) -> list[float]:
    """A Gaussian at `size` places, whose sum is 1; its products with itself are the window."""
    offsets = torch.arange(size, dtype=torch.float64) - size // 2
    line = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    return (line / line.sum()).tolist()


def _blurred(x: Tensor, line: list[float]) -> Tensor:
    """x [..., H, W] under the window where it fits: along one axis and then along the other, as sums of shifted images.

    In fp64, for which convolutions have no fast kernels, that takes a CPU a seventh of the time of two of them.
    """
    for axis in (-2, -1):
        places = x.shape[axis] - len(line) + 1
        total = x.narrow(axis, 0, places) * line[0]
        for shift, weight in enumerate(line[1:], 1):
            total.add_(x.narrow(axis, shift, places), alpha=weight)
        x = total
    return x
