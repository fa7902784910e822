"""What a VQ-VAE does to a split: distortion and codebook use, over the whole split and not a batch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vqprior.configs.schema import Precision
from vqprior.runtime.chunks import chunks
from vqprior.runtime.code_maps import CodeSplit
from vqprior.runtime.codes import codes_onto
from vqprior.runtime.data import Split
from vqprior.runtime.evaluating import evaluating
from vqprior.runtime.launch import autocast
from vqprior.runtime.pictures import to_float
from vqprior.runtime.processes import share_of_process, sum_numbers, sum_tensor

from .objective import Distance
from .vqvae import VQVAE, codes_of, vectors_of


@dataclass(frozen=True)
class Carried:
    """How often the codes of one level are used, and for how much."""

    # [n, K] how often each code occurs, on the CPU; n is 1 but for codes that add up (stage1.residual), where
    # the first, the second, ... of a vector are of codebooks of their own
    counts: Tensor
    # Of reconstructions with this level's codes from another picture, where there are several levels
    swapped_mse: float | None

    def entropies(self) -> Tensor:
        """Of the codes' frequencies in each codebook, in nats, [n]."""
        frequencies = self.counts.double() / self.counts.sum(1, keepdim=True)
        return -torch.special.xlogy(frequencies, frequencies).sum(1)

    @property
    def perplexity(self) -> float:
        """exp of the entropy of the codes' frequencies, of several codebooks of its mean."""
        return math.exp(self.entropies().mean().item())

    @property
    def usage(self) -> float:
        """Share of the K codes that occur, of several codebooks its mean."""
        return (self.counts > 0).double().mean().item()

    def each(self) -> list["Carried"]:
        """Of several codebooks each one alone."""
        return [Carried(of_one, None) for of_one in self.counts.split(1)]

    def figures(self) -> dict[str, float]:
        """The numbers by name; of several codebooks those of each with its number, as `usage_of_1`."""
        found = {"perplexity": self.perplexity, "usage": self.usage}
        if len(self.counts) > 1:
            for number, one in enumerate(self.each(), 1):
                found |= {f"{name}_of_{number}": value for name, value in one.figures().items()}
        return found if self.swapped_mse is None else found | {"swapped_mse": self.swapped_mse}


@dataclass(frozen=True)
class Reconstruction:
    """Figures of one split; images are in [0, 1], reconstructions cut off to it."""

    mse: float  # mean over all sub-pixels
    psnr: float  # dB, of that mean
    relative_mse: float  # mse over the variance of all sub-pixels of the split
    loss: float  # of the decoder's likelihood, mean over all sub-pixels
    decoder_bits_per_dim: float | None  # -log2 p(x | z), where the decoder has a probability
    levels: tuple[Carried, ...]  # coarsest first
    perceptual: float | None = None  # mean distance of features, where training weighs one

    def figures(self) -> dict[str, float]:
        """The numbers by name; of several levels those of each with its number behind, such as `usage_0`."""
        of_levels: dict[str, float] = {}
        for level, carried in enumerate(self.levels):
            ending = f"_{level}" if len(self.levels) > 1 else ""
            of_levels |= {f"{name}{ending}": value for name, value in carried.figures().items()}
        return self.of_images() | of_levels

    def of_images(self) -> dict[str, float]:
        """The numbers that are not of one level alone, by name."""
        names = ("mse", "psnr", "relative_mse", "decoder_bits_per_dim", "perceptual")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def curves(self) -> dict[str, float]:
        """What is logged as training goes on, by tag (see `Tracker.tag`); the relative error has the curve of
        the error."""
        of_images, figures = self.of_images(), self.figures()
        tags = {name: name if name in of_images else f"codes/{name}" for name in figures}
        return {tag: figures[name] for name, tag in tags.items() if name != "relative_mse"}

    def use_in_words(self) -> str:
        """How the codes are used."""
        levels, K = [carried.each() for carried in self.levels], self.levels[0].counts.shape[1]
        in_words = lambda words: " + ".join(", ".join(map(words, level)) for level in levels)
        perplexity = in_words(lambda one: f"{one.perplexity:.1f}")
        used = in_words(lambda one: f"{one.usage:.1%}")
        return f"perplexity {perplexity}, {used} of {K} codes used"


@torch.no_grad()
def measure(
    model: VQVAE,
    split: Split,
    *,
    batch: int,
    precision: Precision,
    channels_last: bool,
    perceptual: Distance | None = None,
    name: str = "",
) -> Reconstruction:
    """Encode and decode every image of the split once, shared out over the processes; changes no state.

    Of several levels it also decodes each image with the codes of one level from another image: the one half
    a split further on, which is of another class where pictures come class by class. A split of one image
    has no other.

    Args:
        name: of a bar, where one is to be shown.
    """
    device, share = model.device, share_of_process()
    levels, n = range(len(model.levels)), model.quantizers[0].codes_per_vector
    counts = torch.zeros(len(levels), n, model.K, dtype=torch.int64, device=device)
    is_several = len(levels) > 1
    # Squared errors: of the reconstructions, and of those with the codes of each level swapped; then x, x^2,
    # the loss, perceptual distances, sub-pixels
    sums = torch.zeros(1 + (len(levels) if is_several else 0) + 5, dtype=torch.float64)

    def images(indices: Tensor) -> Tensor:
        return to_float(split.images(indices), device, channels_last=channels_last)

    with evaluating(model):
        for chunk in chunks(len(split), batch, share, name=name):
            x = images(chunk.padded)
            with autocast(device, precision):
                quantized = model.encode(x)
                vectors = vectors_of(quantized)
                predictions = [model.predict(vectors)]
                if is_several:
                    theirs = vectors_of(model.encode(images(another(chunk.padded, len(split)))))
                    predictions += [model.predict(exchanged(vectors, theirs, level)) for level in levels]
            losses = model.likelihood.loss(predictions[0], x)
            distances = torch.zeros_like(losses)
            if perceptual:
                distances = perceptual(x, model.likelihood.image(predictions[0]))

            # Without the padding
            x = chunk.own(x)
            for of_level, codes in zip(counts, chunk.own(codes_of(quantized)), strict=True):
                for of_each, each in zip(of_level, codes.view(-1, n).T, strict=True):
                    of_each += torch.bincount(each, minlength=model.K)
            errors = [error_of(model, prediction, x) for prediction in predictions]
            # One wait, and not every device has fp64
            of_pixels = torch.stack([*errors, x.sum(), x.square().sum()])
            read = torch.cat([of_pixels, chunk.own(losses), chunk.own(distances)]).cpu().double()
            of_pixels, losses, distances = read.split([len(of_pixels), len(x), len(x)])
            others = [losses.sum() * x[0].numel(), distances.sum(), read.new_tensor(x.numel())]
            sums += torch.cat([of_pixels, torch.stack(others)])
    counts = sum_tensor(counts).cpu()
    error, *swapped, total, squares, loss, distance, pixels = sum_numbers(sums.tolist())
    swapped_mse = [error / pixels for error in swapped] if is_several else [None]
    mse, variance = error / pixels, squares / pixels - (total / pixels) ** 2
    return Reconstruction(
        mse=mse,
        psnr=-10 * math.log10(max(mse, 1e-12)),
        relative_mse=mse / max(variance, 1e-12),
        loss=loss / pixels,
        decoder_bits_per_dim=loss / pixels / math.log(2) if model.likelihood.is_probability else None,
        levels=tuple(Carried(*of_level) for of_level in zip(counts, swapped_mse, strict=True)),
        perceptual=distance / len(split) if perceptual else None,
    )


def another(images: Tensor, count: int) -> Tensor:
    """For each of these of `count` images, [n] int64, another one: a function of the image alone."""
    return (images + max(1, count // 2)) % count


def exchanged(vectors: Sequence[Tensor], others: Sequence[Tensor], level: int) -> tuple[Tensor, ...]:
    """Code vectors [B, D, h, w] of each level, those of one level from the others."""
    return (*vectors[:level], others[level], *vectors[level + 1 :])


def error_of(model: VQVAE, prediction: Tensor, x: Tensor) -> Tensor:
    """The sum [] of squared differences between the images x [n, C, H, W] and those that the first n of the
    predictions say, cut off to [0, 1]."""
    x_hat = model.likelihood.image(prediction)[: len(x)].clamp(0, 1)
    return (x - x_hat).square().sum()


@torch.no_grad()
def decoder_bits_per_dim(
    model: VQVAE, split: Split, codes: CodeSplit, *, batch: int, precision: Precision, channels_last: bool
) -> float:
    """-log2 p(x | z) of the images of a split given their codes, per sub-pixel, shared out over processes.

    Raises:
        ValueError: the decoder has no probability.
    """
    if not model.likelihood.is_probability:
        raise ValueError("this decoder was trained on a distance and says nothing of probabilities")
    total = 0.0
    for chunk in chunks(len(split), batch, share_of_process(), name="bits of the decoder"):
        indices = chunk.padded
        x = to_float(split.images(indices), model.device, channels_last=channels_last)
        with autocast(model.device, precision):
            prediction = model.predict(model.embed(codes_onto(codes.codes(indices), model.device)))
        total += chunk.own(model.likelihood.loss(prediction, x)).cpu().double().sum().item()
    return sum_numbers([total])[0] / len(split) / math.log(2)
