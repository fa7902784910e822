"""How a small classifier of one's own pictures is trained, whatever its network.

Stage one's perceptual distance and the evaluation have one each, of other networks and other seeds.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqprior.runtime import interrupt
from vqprior.runtime.interrupt import Interrupted
from vqprior.runtime.loader import Order, batch_positions
from vqprior.runtime.pictures import to_float
from vqprior.runtime.progress import bar
from vqprior.runtime.randomness import hash64, seed_of, uniform
from vqprior.runtime.transfer import onto

BATCH, RATE, DECAY, SHIFT = 128, 8e-3, 0.01, 2
RISING = 0.15  # of the steps, in which the learning rate rises


class Labelled(NamedTuple):
    """Images with classes, to learn from or to be tested on."""

    images: Callable[[Tensor], Tensor]  # indices [n] -> uint8 [n, C, H, W]
    labels: Tensor  # [N] int64


def shifted(images: Tensor, seed: int, positions: Tensor) -> Tensor:
    """Images [n, C, H, W], each moved by up to two pixels on each axis, by its place [n] in the order.

    Edges repeat.
    """
    height, width = images.shape[-2:]
    moves = (uniform(hash64(seed, 1, positions[:, None], torch.arange(2))) * (2 * SHIFT + 1)).long()  # [n, 2]
    padded = F.pad(images.float(), (SHIFT,) * 4, mode="replicate")
    pairs = zip(padded, moves.tolist(), strict=True)
    return torch.stack([x[:, i : i + height, j : j + width] for x, (i, j) in pairs]).to(images.dtype)


def rate_at(step: int, steps: int) -> float:
    """The learning rate of a step: it rises in a line to its peak, and falls in a line towards zero."""
    rising = max(1, int(RISING * steps))
    if step < rising:
        return RATE * (step + 1) / rising
    return RATE * (steps - step) / (steps - rising)


def train_classifier(
    build: Callable[[], nn.Module],
    data: Labelled,
    *,
    steps: int,
    seed: int,
    device: torch.device,
) -> nn.Module:
    """A classifier after `steps` of AdamW on batches of 128, in fp32 everywhere: a function of network, data
    and seed.

    The work of the main process, with a bar.

    Args:
        build: makes the network, images [B, C, H, W] in [0, 1] -> logits [B, classes].
        data: what it learns from; the order of the batches is that of training a stage.

    Raises:
        Interrupted: the command was told to stop; nothing is left of the steps so far.
    """
    torch.manual_seed(seed_of(seed, 0))
    model = build().to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)
    order = Order(len(data.labels), seed)
    for step in bar(range(steps), "classifier", unit="step"):
        if signal := interrupt.requested():
            raise Interrupted(signal)
        optimizer.param_groups[0]["lr"] = rate_at(step, steps)
        positions = batch_positions(step, BATCH, slice(None))
        indices = order.at(positions)
        x = to_float(shifted(data.images(indices), seed, positions), device, channels_last=True)
        optimizer.zero_grad()
        F.cross_entropy(model(x), onto(data.labels[indices], device)).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)
