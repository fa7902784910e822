"""Binarised MNIST as maps of codes: 28x28 with K = 2, the cheapest outside check of a prior.

    python -m benchmarks.binarised_mnist --root DATA --out runs/binarised
    python -m benchmarks.priors runs/binarised --seconds 3600 --out compared

The first command writes runs/binarised.npz and imports it. Each pixel is 1 with the probability of its
brightness, drawn once (a function of SEED, the picture and the pixel), with 50,000, 10,000 and 10,000
pictures to train, choose and report. The published figures, in nats an image, are of another draw of the same
kind,
the file of Larochelle and Murray 2011: PixelSNAIL 78.61, ImageGPT 79.17, Gated PixelCNN 81.50, after some 450
epochs (EugenHotaj/pytorch-generative, README).
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import MNIST

from vqprior.cli import main as vqprior
from vqprior.runtime.randomness import hash64, uniform

SEED = 0
VALIDATION = 10_000  # the last of the training pictures


def binarised(images: torch.Tensor, first: int) -> np.ndarray:
    """Pictures [N, 28, 28] uint8 -> uint8 0 or 1, the first of them being picture number `first`."""
    places = images[0].numel()
    parts = []
    for begin in range(0, len(images), 5000):
        part = images[begin : begin + 5000].flatten(1)
        numbers = first + begin + torch.arange(len(part))
        chance = uniform(hash64(SEED, numbers[:, None], torch.arange(places)))
        parts.append((chance < part / 255).to(torch.uint8))
    return torch.cat(parts).view_as(images).numpy()


def main() -> int:
    """Write the file and import it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", required=True, help="torchvision's folder of MNIST")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    train, test = (MNIST(options.root, train=name == "train").data for name in ("train", "test"))
    codes = np.concatenate([binarised(train, 0), binarised(test, len(train))])
    chosen = len(train) - VALIDATION
    split = np.repeat(["train", "validation", "test"], [chosen, VALIDATION, len(test)])
    file = options.out.with_suffix(".npz")
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, codes=codes, split=split)
    return vqprior(["import-codes", str(file), "--K", "2", "--out", str(options.out)])


if __name__ == "__main__":
    sys.exit(main())
