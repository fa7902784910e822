"""Gated PixelCNN: the prior over code maps.

Conditional Image Generation with PixelCNN Decoders, van den Oord et al. 2016, https://arxiv.org/abs/1606.05328.

What is done differently here, and why:
- The kernels have only the taps they may use (see layers.py), so there is no mask to get wrong.
- The first vertical layer looks at the rows above only, so the vertical features need no shift before they join the
  horizontal stack.

Legend: B maps, C channels, h x w the map, K codes.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqprior.configs import from_tree
from vqprior.configs.errors import UserError
from vqprior.configs.schema import Stage2
from vqprior.runtime.checkpoint import Checkpoint
from vqprior.runtime.randomness import hash64, uniform

from .layers import GatedLayer


class PixelCNN(nn.Module):
    """p(codes | label) as a product over places in raster order: codes and labels -> logits of each place.

    Args:
        config: channels, layers, kernel and head.
        K: number of codes.
        classes: number of labels, 0 for an unconditional prior.
        codes_per_position: n where each n columns are codes of one square of pixels; the first, second, ... of them are
            embedded each in its own way, so that the prior can tell them apart.

    Where labels are hidden in training (config.label_dropout), label number `classes` stands for a hidden one; it is
    `null_label`, and None where the prior knows no such label.
    """

    def __init__(self, config: Stage2, *, K: int, classes: int, codes_per_position: int = 1):
        super().__init__()
        self.K, self.classes, self.codes_per_position = K, classes, codes_per_position
        self.null_label = classes if classes and config.label_dropout else None
        rows = classes + (self.null_label is not None)
        self.embedding = nn.Embedding(codes_per_position * K, config.channels)
        self.layers = nn.ModuleList(
            GatedLayer(config.channels, config.kernel, labels=rows, first=index == 0) for index in range(config.layers)
        )
        self.hidden = nn.Conv2d(config.channels, config.head, 1)
        self.logits = nn.Conv2d(config.head, K, 1)
        nn.init.zeros_(self.logits.weight)  # start from the uniform prior: the first loss is log K
        nn.init.zeros_(self.logits.bias)

    def label_tensors(self) -> list[str]:
        """Names of the tensors whose rows are the classes in order, and then the hidden label."""
        layers = [f"layers.{index}" for index in range(len(self.layers))]
        return [f"{layer}.label_bias.weight" for layer in layers if self.classes]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.weight.device

    def forward(self, codes: Tensor, labels: Tensor | None = None, kept: Tensor | None = None) -> Tensor:
        """Logits [B, K, h, w] of codes [B, h, w] int64 in [0, K) given all earlier codes and labels [B] int64.

        Args:
            kept: in training, what `dropout` gives, [B, layers, C]; without it nothing is dropped.

        Raises:
            ValueError: labels given to an unconditional prior, or none to a conditional one.
        """
        if (labels is None) != (self.classes == 0):
            raise ValueError(f"the prior has {self.classes} classes, but labels are {labels}")
        column = torch.arange(codes.shape[-1], device=codes.device)
        x = rearrange(self.embedding(codes + column % self.codes_per_position * self.K), "b h w c -> b c h w")
        v = h = x  # [B, C, h, w]
        for index, layer in enumerate(self.layers):
            v, h = layer(v, h, labels, None if kept is None else kept[:, index])
        return self.logits(F.relu(self.hidden(F.relu(h))))  # [B, K, h, w]


def dropout(config: Stage2, seed: int, positions: Tensor) -> Tensor | None:
    """Factors [B, layers, C] of the gated channels: 0 for a share `config.dropout` of them, and more than 1 for the others,
    so that the mean stays. Whole channels are as good here as single features, and much cheaper to draw.

    They are a function of the seed and the maps' positions [B] in the order of a run, of no state and no number of
    processes, and are made where the positions are.
    """
    if not config.dropout:
        return None
    layer, channel = (torch.arange(size, device=positions.device) for size in (config.layers, config.channels))
    chance = uniform(hash64(seed, 5, positions[:, None, None], layer[:, None], channel))
    return (chance >= config.dropout).float() / (1 - config.dropout)


def load_prior(found: Checkpoint, device: torch.device) -> PixelCNN:
    """The prior of a checkpoint, rebuilt from the configuration it carries, for evaluation.

    Raises:
        UserError: the checkpoint is not one of stage two.
    """
    if found.meta.get("stage") != "stage2":
        raise UserError(f"{found.path} is a checkpoint of {found.meta.get('stage')}, expected one of stage2")
    config, codes = from_tree(found.meta["config"]), found.meta["codes"]
    model = PixelCNN(
        config.stage2, K=codes["levels"][0]["K"], classes=len(codes["label_names"]),
        codes_per_position=config.stage1.codes_per_position,
    )  # fmt: skip
    model.load_state_dict(found.tensors(found.weights))
    return model.to(device).eval().requires_grad_(False)
