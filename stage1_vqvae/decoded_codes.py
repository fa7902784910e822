"""What the codes mean: each decoded by itself, for the training's log."""

import torch
from torch import Tensor

from vqprior.runtime.evaluating import evaluating
from vqprior.runtime.pictures import tiled, to_uint8
from vqprior.runtime.tracker import Tracker

from .measure import Carried
from .quantizers.lookup import Lookup
from .vqvae import VQVAE

MOST = 1024  # codes of a level that are shown, the most used ones: a picture of more shows nothing
COLUMNS = 16
AT_ONCE = 128  # codes decoded at once
THUMBNAIL = 32  # pixels, at least


def log_codebook(tracker: Tracker, step: int, model: VQVAE, use: tuple[Carried, ...]) -> None:
    """Log what each code is decoded to, the most used first, and where there are code vectors these.

    Of codes that add up (stage1.residual) it is the first of each vector, alone.
    """
    for level, (carried, quantizer) in enumerate(zip(use, model.quantizers, strict=True)):
        ending = f"_{level}" if len(use) > 1 else ""
        codes = carried.counts[0].argsort(descending=True, stable=True)[:MOST]
        images = decoded(model, level, codes, use)
        tracker.picture(step, f"single_codes{ending}", tiled(images, COLUMNS, padding=2))
        if isinstance(quantizer.first, Lookup):
            vectors = quantizer.first.embed(codes.to(model.device)[None, None])[0, :, 0].T
            columns = {"code": codes, "occurs": carried.counts[0, codes]}
            tracker.codebook(f"codebook{ending}", columns, vectors.cpu(), images)


@torch.no_grad()
def decoded(model: VQVAE, level: int, codes: Tensor, use: tuple[Carried, ...]) -> Tensor:
    """What codes [n] of a level are decoded to, [n, C, s, s] uint8: the square of a position of the coarsest
    level in the middle of three times three that all hold the code; the other levels hold their most used
    one."""
    return torch.cat([_decoded(model, level, part, use) for part in codes.split(AT_ONCE)])


def _decoded(model: VQVAE, level: int, codes: Tensor, use: tuple[Carried, ...]) -> Tensor:
    vectors = []
    for index, (quantizer, carried) in enumerate(zip(model.quantizers, use, strict=True)):
        own = codes if index == level else carried.counts[0].argmax().expand(len(codes))
        side = 3 * 2**index
        shape = (len(codes), side, side * model.vectors_per_position)
        vectors.append(quantizer.first.embed(own.to(model.device)[:, None, None].expand(shape)))
    with evaluating(model):
        images = to_uint8(model.decode(vectors))
    middle = images.shape[-1] // 3
    images = images[:, :, middle : 2 * middle, middle : 2 * middle]
    scale = -(-THUMBNAIL // middle)
    return images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
