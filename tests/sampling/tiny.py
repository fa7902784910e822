"""A generator with random weights and opinions, small enough to try everything."""

from dataclasses import replace

import torch

from vqprior import Generator
from vqprior.configs import Config
from vqprior.configs.schema import Data, GatedPixelCNN, Stage1, Stage2
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
) -> Generator:
    """Maps of `size` / 4; the classes are called a, b, c. The prior is a Gated PixelCNN unless `stage2` says
    otherwise."""
    torch.manual_seed(0)
    stage1 = Stage1(K=K, D=3, width=8, blocks=1, block_width=4, factor=4)
    vqvae = (
        VQVAE(replace(Config(), data=Data(size=size, channels=channels), stage1=stage1))
        .eval()
        .requires_grad_(False)
    )
    (level,) = vqvae.levels
    own = GatedPixelCNN(head=8)
    plain = Stage2(channels=6, layers=3, gated_pixelcnn=own, label_dropout=label_dropout)
    prior = build(stage2 or plain, [level], classes).eval()
    torch.nn.init.normal_(vqvae.quantizers[0].embedding)
    for parameter in [*vqvae.parameters(), *prior.parameters()]:
        torch.nn.init.normal_(parameter, std=0.5)
    return Generator(vqvae, prior.requires_grad_(False), "abc"[:classes])
