"""Structural similarity of two images: Wang et al. 2004, "Image quality assessment", Equation 13."""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """SSIM [B] of images [B, C, H, W] in [0, 1]; 1 for equal images, at least -1.

    A Gaussian window of 11x11 and sigma 1.5, only where it fits into the image, the mean over places and channels, as in
    the authors' code. Images of fewer pixels get the largest odd window that fits.
    """
    size = min(WINDOW, *(side - (side + 1) % 2 for side in x.shape[-2:]))
    offsets = torch.arange(size, dtype=torch.float64, device=x.device) - size // 2
    line = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    window = (line[:, None] * line / line.sum() ** 2)[None, None]  # [1, 1, size, size]

    def blur(image: Tensor) -> Tensor:
        return F.conv2d(image.flatten(0, 1)[:, None], window)

    x, y = x.double(), y.double()
    mean_x, mean_y = blur(x), blur(y)
    variance_x, variance_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = K1**2, K2**2
    light = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (light * structure).view(len(x), -1).mean(1)
