"""What a VQ-VAE does to a split: distortion and codebook use, over the whole split and not a batch."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from configs.schema import Precision
from runtime.data import Split
from runtime.launch import autocast
from runtime.loader import chunks, padded
from runtime.pictures import to_float
from runtime.processes import share_of_process, sum_numbers, sum_tensor

from .vqvae import VQVAE


@dataclass(frozen=True)
class Reconstruction:
    """Figures of one split; images are in [0, 1], reconstructions cut off to it."""

    mse: float  # mean over all sub-pixels
    psnr: float  # dB, of that mean
    relative_mse: float  # mse over the variance of all sub-pixels of the split
    perplexity: float  # exp of the entropy of the codes' frequencies
    usage: float  # share of the K codes that occur
    counts: Tensor  # [K] how often each code occurs, on the CPU

    def figures(self) -> dict[str, float]:
        """The numbers by name."""
        names = ("mse", "psnr", "relative_mse", "perplexity", "usage")
        return {name: getattr(self, name) for name in names}


@torch.no_grad()
def measure(model: VQVAE, split: Split, *, batch: int, precision: Precision, channels_last: bool) -> Reconstruction:
    """Encode and decode every image of the split once, shared out over the processes; changes no state."""
    device, share = model.device, share_of_process()
    counts = torch.zeros(model.K, dtype=torch.int64, device=device)
    error = total = squares = pixels = 0.0
    training = model.training
    model.eval()
    for chunk in chunks(len(split), batch, share):
        x = to_float(split.images(padded(chunk, batch)), device, channels_last=channels_last)
        with autocast(device, precision):
            quantized = model.encode(x)
            x_hat = model.decode(quantized.z_q).float()
        x, x_hat = x[: len(chunk)], x_hat[: len(chunk)].clamp(0, 1)
        counts += torch.bincount(quantized.codes[: len(chunk)].flatten(), minlength=model.K)
        error += (x - x_hat).square().sum().item()
        total += x.sum().item()
        squares += x.square().sum().item()
        pixels += x.numel()
    model.train(training)
    counts = sum_tensor(counts).cpu()
    error, total, squares, pixels = sum_numbers([error, total, squares, pixels])
    mse, variance = error / pixels, squares / pixels - (total / pixels) ** 2
    frequencies = counts.double() / counts.sum()
    entropy = -torch.special.xlogy(frequencies, frequencies).sum().item()
    return Reconstruction(
        mse=mse,
        psnr=-10 * math.log10(max(mse, 1e-12)),
        relative_mse=mse / max(variance, 1e-12),
        perplexity=math.exp(entropy),
        usage=(counts > 0).double().mean().item(),
        counts=counts,
    )
