"""What training asks of the quantizers of all levels: where they start, what they saw in a step, and on what
they could be restarted."""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from vqprior.configs import Config
from vqprior.runtime import pictures
from vqprior.runtime.data import DataSet
from vqprior.runtime.launch import autocast
from vqprior.runtime.loader import Order, Share
from vqprior.runtime.processes import is_main, sum_tensor, sum_together
from vqprior.runtime.randomness import Stream, generator

from ..vqvae import VQVAE
from .quantizer import Quantized, Quantizer
from .terms import total

KMEANS_VECTORS = 100  # encoder outputs for each code that k-means starts from


def candidates(model: VQVAE, batch_size: int, chance: torch.Generator) -> Tensor:
    """For each code of each level one of the level's vectors of a step, by chance: [levels, n * K] int64, n
    the codes of a vector."""
    n = model.quantizers[0].codes_per_vector
    vectors = [batch_size * level.places // n for level in model.levels]
    return torch.stack([torch.randint(count, (n * model.K,), generator=chance) for count in vectors])


def observed(quantizer: Quantizer, quantized: Sequence[Quantized], drawn: Tensor, share: Share) -> Tensor:
    """What a level's quantizer saw in the passes of a step, for the sum over all processes."""
    if not quantizer.moves:
        return quantized[0].z_e.new_zeros(0)
    vectors = torch.cat([rearrange(one.z_e.detach(), "b d h w -> (b h w) d") for one in quantized])
    codes = torch.cat([one.codes.flatten() for one in quantized])
    return quantizer.observe(vectors, codes, drawn, share.rank, share.processes)


@torch.no_grad()
def encoded(model: VQVAE, parts: Sequence[Tensor], config: Config) -> list[tuple[Quantized, ...]]:
    """What becomes of the pictures [n, C, H, W] uint8 of each pass, as the forward of that pass will find."""
    with autocast(model.device, config.precision):
        images = (pictures.to_float(part, model.device, channels_last=config.channels_last) for part in parts)
        return [model.encode(x) for x in images]


@torch.no_grad()
def mean_shares(passes: Sequence[Sequence[Quantized]], share: Share) -> list[Tensor]:
    """For each level the mean over all passes of a step and all processes of what `Quantized.shares` are."""
    sums = [total(quantized.shares for quantized in level) for level in zip(*passes, strict=True)]
    return [of_level / (len(passes) * share.processes) for of_level in sum_together(*sums)]


def start_quantizers(model: VQVAE, data: DataSet, config: Config) -> None:
    """Before the first step, put codebooks on encoder outputs where they want that: the same on all
    processes."""
    if not model.quantizers[0].starts_on_vectors:
        return
    chance = generator(config.seed, Stream.KMEANS)
    for level, quantizer in enumerate(model.quantizers):  # coarsest first: the next one knows its codes
        quantizer.start(first_vectors(model, level, data, config), chance)
        # Sums on GPUs have no fixed order: all take the main one's
        for tensor in quantizer.state_dict().values():
            tensor.copy_(sum_tensor(tensor if is_main() else torch.zeros_like(tensor)))


@torch.no_grad()
def first_vectors(model: VQVAE, level: int, data: DataSet, config: Config) -> Tensor:
    """A level's encoder outputs [N, D] of the first images of the run's order, enough for k-means; the same
    on all processes."""
    places = model.levels[level].places // model.quantizers[level].codes_per_vector
    images = min(len(data.train), -(-KMEANS_VECTORS * model.K // places))
    vectors = []
    for indices in Order(len(data.train), config.seed).at(torch.arange(images)).split(config.inference_batch):
        x = pictures.to_float(data.train.images(indices), model.device, channels_last=config.channels_last)
        vectors.append(rearrange(model.encode(x)[level].z_e, "b d h w -> (b h w) d"))
    return torch.cat(vectors)
