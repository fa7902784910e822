"""A generator with random weights and opinions, small enough to try everything."""

from dataclasses import replace

import torch

from vqprior import Generator
from vqprior.configs import Config
from vqprior.configs.schema import Data, GatedPixelCNN, Stage1, Stage2, Stage2Fine
from vqprior.stage1_vqvae.vqvae import VQVAE
from vqprior.stage2_prior.priors import build


def tiny_generator(
    K: int = 7,
    size: tuple[int, int] = (16, 20),
    classes: int = 3,
    *,
    channels: int = 3,
    label_dropout: float = 0.1,
    stage2: Stage2 | None = None,
    levels: int = 1,
) -> Generator:
    """Maps of `size` / 4, and half that for each coarser level; the classes are called a, b, c. The priors
    are Gated PixelCNNs unless `stage2` says otherwise."""
    torch.manual_seed(0)
    stage1 = Stage1(K=K, D=3, width=8, blocks=1, block_width=4, factor=4, levels=levels)
    vqvae = (
        VQVAE(replace(Config(), data=Data(size=size, channels=channels), stage1=stage1))
        .eval()
        .requires_grad_(False)
    )
    own = dict(channels=6, layers=3, gated_pixelcnn=GatedPixelCNN(head=8), label_dropout=label_dropout)
    coarsest, finer = stage2 or Stage2(**own), [Stage2Fine(**own)] * (levels - 1)
    priors = [
        build(config, vqvae.levels[: index + 1], classes).eval().requires_grad_(False)
        for index, config in enumerate([coarsest, *finer])
    ]
    for quantizer in vqvae.quantizers:
        torch.nn.init.normal_(quantizer.embedding)
    for network in (vqvae, *priors):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return Generator(vqvae, priors, "abc"[:classes])
