"""What a VQ-VAE does to a split: distortion and codebook use, over the whole split and not a batch."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vqprior.configs.schema import Precision
from vqprior.runtime.code_maps import CodeSplit
from vqprior.runtime.data import Split
from vqprior.runtime.evaluating import evaluating
from vqprior.runtime.launch import autocast
from vqprior.runtime.loader import chunks, padded
from vqprior.runtime.pictures import to_float
from vqprior.runtime.processes import share_of_process, sum_numbers, sum_tensor
from vqprior.runtime.transfer import onto

from .vqvae import VQVAE


@dataclass(frozen=True)
class Reconstruction:
    """Figures of one split; images are in [0, 1], reconstructions cut off to it."""

    mse: float  # mean over all sub-pixels
    psnr: float  # dB, of that mean
    relative_mse: float  # mse over the variance of all sub-pixels of the split
    perplexity: float  # exp of the entropy of the codes' frequencies
    usage: float  # share of the K codes that occur
    loss: float  # of the decoder's likelihood, mean over all sub-pixels
    decoder_bits_per_dim: float | None  # -log2 p(x | z), where the decoder has a probability
    counts: Tensor  # [K] how often each code occurs, on the CPU

    def figures(self) -> dict[str, float]:
        """The numbers by name."""
        names = ("mse", "psnr", "relative_mse", "perplexity", "usage", "decoder_bits_per_dim")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@torch.no_grad()
def measure(
    model: VQVAE, split: Split, *, batch: int, precision: Precision, channels_last: bool
) -> Reconstruction:
    """Encode and decode every image of the split once, shared out over the processes; changes no state."""
    device, share = model.device, share_of_process()
    counts = torch.zeros(model.K, dtype=torch.int64, device=device)
    error = loss = total = squares = pixels = 0.0
    with evaluating(model):
        for chunk in chunks(len(split), batch, share):
            x = to_float(split.images(padded(chunk, batch)), device, channels_last=channels_last)
            with autocast(device, precision):
                quantized = model.encode(x)
                prediction = model.predict(quantized.z_q)
            losses, x_hat = model.likelihood.loss(prediction, x), model.likelihood.image(prediction)
            x, x_hat = x[: len(chunk)], x_hat[: len(chunk)].clamp(0, 1)
            counts += torch.bincount(quantized.codes[: len(chunk)].flatten(), minlength=model.K)
            sums = torch.stack([(x - x_hat).square().sum(), x.sum(), x.square().sum()])
            # One wait, and not every device has fp64
            found = torch.cat([sums, losses[: len(chunk)]]).cpu().double()
            error += found[0].item()
            total += found[1].item()
            squares += found[2].item()
            loss += found[3:].sum().item() * x[0].numel()
            pixels += x.numel()
    counts = sum_tensor(counts).cpu()
    error, loss, total, squares, pixels = sum_numbers([error, loss, total, squares, pixels])
    mse, variance = error / pixels, squares / pixels - (total / pixels) ** 2
    frequencies = counts.double() / counts.sum()
    entropy = -torch.special.xlogy(frequencies, frequencies).sum().item()
    return Reconstruction(
        mse=mse,
        psnr=-10 * math.log10(max(mse, 1e-12)),
        relative_mse=mse / max(variance, 1e-12),
        perplexity=math.exp(entropy),
        usage=(counts > 0).double().mean().item(),
        loss=loss / pixels,
        decoder_bits_per_dim=loss / pixels / math.log(2) if model.likelihood.is_probability else None,
        counts=counts,
    )


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
    for chunk in chunks(len(split), batch, share_of_process()):
        indices = padded(chunk, batch)
        x = to_float(split.images(indices), model.device, channels_last=channels_last)
        with autocast(model.device, precision):
            prediction = model.predict(model.quantizer.embed(onto(codes.codes(indices), model.device)))
        total += model.likelihood.loss(prediction, x)[: len(chunk)].cpu().double().sum().item()
    return sum_numbers([total])[0] / len(split) / math.log(2)
