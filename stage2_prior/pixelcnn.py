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
from vqprior.runtime.transfer import onto

from .former import tensors_of
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
            GatedLayer(config.channels, config.kernel, first=index == 0) for index in range(config.layers)
        )
        # Equation 4's biases of all layers, side by side: one lookup and one cast instead of one a layer
        self.label_bias = nn.Embedding(rows, config.layers * 4 * config.channels) if rows else None
        self.hidden = nn.Conv2d(config.channels, config.head, 1)
        self.logits = nn.Conv2d(config.head, K, 1)
        nn.init.zeros_(self.logits.weight)  # start from the uniform prior: the first loss is log K
        nn.init.zeros_(self.logits.bias)

    def label_tensors(self) -> list[str]:
        """Names of the tensors whose rows are the classes in order, and then the hidden label."""
        return ["label_bias.weight"] if self.classes else []

    def label_biases(self, labels: Tensor | None) -> list[Tensor | None]:
        """For each layer what the labels [B] add to its features, [B, 4C]; None without classes."""
        if self.label_bias is None:
            return [None] * len(self.layers)
        biases = self.label_bias(labels)
        # In the type of what they are added to: a sum of bf16 and fp32 would be fp32, and so would all that follows
        if torch.is_autocast_enabled(self.device.type):
            biases = biases.to(torch.get_autocast_dtype(self.device.type))
        return list(biases.chunk(len(self.layers), dim=1))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.weight.device

    def undecayed(self) -> set[str]:
        """Names of the parameters that weight decay leaves alone, biases aside: codes', not labels'."""
        return {"embedding.weight"}

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
        biases = self.label_biases(labels)
        factors = [None] * len(self.layers) if kept is None else kept.unbind(1)
        for layer, bias, factor in zip(self.layers, biases, factors, strict=True):
            v, h = layer(v, h, bias, factor)
        return self.logits(F.relu(self.hidden(F.relu(h))))  # [B, K, h, w]


def dropout_keys(config: Stage2, seed: int, positions: Tensor) -> Tensor:
    """What `dropout` is drawn from for maps at these positions [B] in the order of a run: [B, layers] int64.

    A function of the seed and the positions, of no state and no number of processes. It is little work, for the CPU.
    """
    return hash64(seed, 5, positions[:, None], torch.arange(config.layers))


def dropout(config: Stage2, keys: Tensor) -> Tensor | None:
    """Factors [B, layers, C] of the gated channels: 0 for a share `config.dropout` of them, and more than 1 for the others,
    so that the mean stays; made where the keys [B, layers] are. Whole channels are as good here as single features, and
    much cheaper to draw.
    """
    if not config.dropout:
        return None
    if keys.device.type == "mps":  # whose arithmetic on 64 bits is not relied on (see sampling/self_check.py)
        return onto(dropout(config, keys.cpu()), keys.device)
    channel = torch.arange(config.channels, device=keys.device)
    chance = uniform(hash64(channel, after=keys[:, :, None]))
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
    model.load_state_dict(tensors_of(found, found.weights))
    return model.to(device).eval().requires_grad_(False)
