"""The share of class-conditional samples that a classifier trained on real MNIST gives the label they were asked for.

    vqprior sample runs/mnist5k --n 2000 --out samples
    python -m benchmarks.label_accuracy samples/samples.npz --root FOLDER_OF_TORCHVISION

The classifier is a small convolutional network, four passes over MNIST's 60,000 training digits, shifted at random by up to
two pixels (a few minutes on 2 CPU cores); its own accuracy on the 10,000 test digits is printed first. `--cache` keeps it.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torchvision.datasets import MNIST

PASSES, BATCH, RATE = 4, 128, 1e-3


def classifier() -> nn.Sequential:
    """28 x 28 grey images [B, 1, 28, 28] in [0, 1] -> logits [B, 10]."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3),
        nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def train(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Fit the classifier to images [N, 1, 28, 28] in [0, 1]."""
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    steps, step = PASSES * (len(images) // BATCH + 1), 0
    for _ in range(PASSES):
        for chosen in torch.randperm(len(images)).split(BATCH):
            optimizer.param_groups[0]["lr"] = RATE * (1 - step / steps)
            shift = tuple(torch.randint(-2, 3, (2,)).tolist())
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(torch.roll(images[chosen], shift, (2, 3)))
            optimizer.zero_grad()
            F.cross_entropy(logits.float(), labels[chosen]).backward()
            optimizer.step()
            step += 1


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images that get their label."""
    predicted = torch.cat([model(part).argmax(1) for part in images.split(500)])
    return (predicted == labels).double().mean().item()


def main() -> None:
    """Train or load the classifier, then score each archive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archives", type=Path, nargs="+", help="samples.npz as `vqprior sample` writes it")
    parser.add_argument("--root", default="data", help="torchvision's folder of MNIST")
    parser.add_argument("--cache", type=Path, default=None, help="keep the classifier in this file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = classifier()
    if options.cache and options.cache.is_file():
        load_model(model, options.cache)
    else:
        real = MNIST(options.root, train=True)
        train(model, real.data[:, None].float() / 255, real.targets)
        if options.cache:
            save_model(model, options.cache)
    model.eval()
    real = MNIST(options.root, train=False)
    print(f"real test digits: {accuracy(model, real.data[:, None].float() / 255, real.targets):.2%}")
    for path in options.archives:
        archive = np.load(path)
        images, labels = torch.from_numpy(archive["images"]).permute(0, 3, 1, 2) / 255, torch.from_numpy(archive["labels"])
        print(f"{path}: {accuracy(model, images, labels):.2%} of {len(labels)} samples")


if __name__ == "__main__":
    main()
