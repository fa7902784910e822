"""Samples of other models, trained on the same training images in the same time, for `vqprior evaluate
--archives`.

    pip install pythae
    python -m benchmarks.baselines runs/mnist5k --seconds 65 85 --out baselines
    vqprior evaluate runs/mnist5k --archives baselines/*/samples.npz

Trains models of pythae (PyPI) with the networks and the settings that it gives for MNIST and CIFAR-10, on the
training split of a run; `--seconds` are those that the two stages of the run took on the same machine.

    vqvae_pixelcnn          VQVAE and PixelCNNSampler, one for all classes: it knows no labels
    vqvae_pixelcnn_class    the same VQVAE, and a PixelCNNSampler for each class, which share the seconds
    ae_gmm                  AE (for both stages' seconds) and a Gaussian mixture of 10 components
    ae_gmm_class            the same AE, and such a mixture for each class

The rest are pythae's defaults, but that the VQVAE and the AE keep the weights of their last pass, not those
of the least
training loss: that of a VQ-VAE rises while its codebook fills, and on mnist5k the least is that of a decoder
which paints the same grey squares for all codes. (With --learning_rate 1e-3 these networks learnt to paint
all black.)
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.command import program
from vqprior.configs.errors import UserError
from vqprior.runtime.data import load
from vqprior.runtime.run_dir import RunDir

try:
    from pythae.data.datasets import BaseDataset
    from pythae.models import AE, VQVAE, AEConfig, VQVAEConfig
    from pythae.models.nn.benchmarks import cifar, mnist
    from pythae.samplers import (
        GaussianMixtureSampler,
        GaussianMixtureSamplerConfig,
        PixelCNNSampler,
        PixelCNNSamplerConfig,
    )
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
except ImportError as error:
    raise SystemExit(
        f"this benchmark compares with pythae, which cannot be imported ({error}): pip install pythae"
    ) from error

NETWORKS = {(1, 28, 28): (mnist, "MNIST", 16), (3, 32, 32): (cifar, "CIFAR", 64)}
"""Module, name and latent channels or size by the shape of an image."""
NAMES = ["vqvae_pixelcnn", "vqvae_pixelcnn_class", "ae_gmm", "ae_gmm_class"]


def networks(shape: tuple[int, int, int], kind: str, config: Any) -> dict[str, Any]:
    """Encoder and decoder of pythae's benchmark for images of a shape."""
    module, name, _ = NETWORKS[shape]
    names = [f"{part}_ResNet_{kind}_{name}" for part in ("Encoder", "Decoder")]
    encoder, decoder = (getattr(module, each)(config) for each in names)
    return {"encoder": encoder, "decoder": decoder}


def within(seconds: float, fit: Callable[[Any], None], folder: str, seed: int, rate: float) -> int:
    """Call `fit` with a training configuration of as many passes as take these seconds; one pass is timed
    before."""
    settings = dict(
        output_dir=folder, learning_rate=rate, per_device_train_batch_size=64, seed=seed, no_cuda=True
    )
    began = time.perf_counter()
    fit(BaseTrainerConfig(num_epochs=1, **settings))
    passes = max(1, round(seconds / (time.perf_counter() - began)))
    fit(BaseTrainerConfig(num_epochs=passes, **settings))
    return passes


class Baselines:
    """The models, on one training split.

    Args:
        x, y: images fp32 [N, C, H, W] in [0, 1] and labels [N].
        seconds: of the two stages.
        n: samples of each model.
        rate: Adam's learning rate.
    """

    def __init__(
        self, x: Tensor, y: Tensor, classes: int, seconds: tuple[float, float], n: int, seed: int, rate: float
    ):
        self.x, self.y, self.classes, self.seconds, self.n = x, y, classes, seconds, n
        self.seed, self.rate = seed, rate
        self.shape = tuple(x.shape[1:])
        if self.shape not in NETWORKS:
            raise UserError(
                f"images are {self.shape}; pythae has networks for {', '.join(map(str, NETWORKS))}"
            )

    def model(self, kind: type, config: Any, name: str, seconds: float) -> Any:
        """A trained model."""
        held: list[Any] = []

        def fit(training: Any) -> None:
            torch.manual_seed(self.seed)
            model = kind(model_config=config, **networks(self.shape, name, config))
            BaseTrainer(
                model=model, train_dataset=BaseDataset(self.x, self.y), training_config=training
            ).train()
            held[:] = [model.eval()]

        with tempfile.TemporaryDirectory() as folder:
            print(f"{kind.__name__}: {within(seconds, fit, folder, self.seed, self.rate)} passes")
        return held[0]

    def by_class(self, fitted: Callable[[Tensor, float], Any], seconds: float) -> tuple[Tensor, Tensor]:
        """n samples of one sampler a class, and their labels: the classes in turn."""
        each = -(-self.n // self.classes)
        samples = [
            fitted(self.x[self.y == label], seconds / self.classes).sample(each)
            for label in range(self.classes)
        ]
        images = torch.stack(samples, 1).flatten(0, 1)[: self.n]  # image i has class i mod C
        return images, torch.arange(len(images)) % self.classes

    @cached_property
    def vqvae(self) -> Any:
        """Trained once, for both of its samplers."""
        return self.model(
            VQVAE,
            VQVAEConfig(input_dim=self.shape, latent_dim=NETWORKS[self.shape][2]),
            "VQVAE",
            self.seconds[0],
        )

    @cached_property
    def ae(self) -> Any:
        """Trained once, for both of its mixtures."""
        return self.model(
            AE, AEConfig(input_dim=self.shape, latent_dim=NETWORKS[self.shape][2]), "AE", sum(self.seconds)
        )

    def pixelcnn(self, x: Tensor, seconds: float) -> Any:
        """A prior of the VQVAE's codes of these images."""
        held: list[Any] = []
        vqvae = self.vqvae  # trained here, not in the seconds of the prior

        def fit(training: Any) -> None:
            torch.manual_seed(self.seed)
            sampler = PixelCNNSampler(model=vqvae, sampler_config=PixelCNNSamplerConfig())
            sampler.fit(train_data=x, training_config=training)
            held[:] = [sampler]

        with tempfile.TemporaryDirectory() as folder:
            print(
                f"PixelCNNSampler on {len(x)} images: {within(seconds, fit, folder, self.seed, self.rate)} "
                "passes"
            )
        return held[0]

    def mixture(self, x: Tensor, seconds: float = 0) -> Any:
        """A mixture of 10 Gaussians of the AE's codes of these images."""
        sampler = GaussianMixtureSampler(
            model=self.ae, sampler_config=GaussianMixtureSamplerConfig(n_components=10)
        )
        sampler.fit(x)
        return sampler

    def samples(self, name: str) -> tuple[Tensor, Tensor | None]:
        """Images [n, C, H, W] of a model by its name, and their labels [n]."""
        fitted, seconds = (self.pixelcnn, self.seconds[1]) if name.startswith("vqvae") else (self.mixture, 0)
        torch.manual_seed(self.seed)
        np.random.seed(self.seed)
        return (
            self.by_class(fitted, seconds)
            if name.endswith("class")
            else (fitted(self.x, seconds).sample(self.n), None)
        )


def main() -> None:
    """Train, sample, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run directory: its data and its training split")
    parser.add_argument(
        "--seconds", type=float, nargs=2, required=True, help="of training stage one and stage two"
    )
    parser.add_argument("--models", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--root", default=None, help="data.root, where it is not that of the run")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning_rate", type=float, default=1e-4, help="of Adam; pythae's default")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    settings = RunDir(options.run).config().data
    train = load(replace(settings, root=options.root or settings.root)).train
    x = train.images(torch.arange(len(train))).float() / 255
    if train.labels is None:
        raise UserError(
            f"the training images of {options.run} have no classes, which these models are trained on"
        )
    classes = int(train.labels.max()) + 1
    models = Baselines(
        x, train.labels, classes, tuple(options.seconds), options.images, options.seed, options.learning_rate
    )
    for name in options.models:
        images, labels = models.samples(name)
        folder = options.out / name
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {
            "images": (images.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        }
        np.savez(folder / "samples.npz", **arrays, **({} if labels is None else {"labels": labels.numpy()}))
        print(f"{folder / 'samples.npz'}: {len(images)} images", flush=True)


if __name__ == "__main__":
    program("baselines", main)
