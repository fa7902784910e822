"""The VQ-VAE: an encoder, a quantizer and a decoder; or several levels of them, one above the other.

Neural Discrete Representation Learning, van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, and for
levels Generating Diverse High-Fidelity Images with VQ-VAE-2, Razavi et al. 2019,
https://arxiv.org/abs/1906.00446.

Levels are listed coarsest first; each has half the height and width of the next. With two:

    x --> encoder.features ----------------------> [beside] --> quantizers[1] --+--> decoder --> x_hat
                 |                                     ^                        |
                 +--> coarser[0] --> quantizers[0] --> enlarge[0] --------------+

A finer level is quantized knowing what the coarser ones say, and the decoder sees them all. What is done
differently here: one network enlarges a level, for the quantizer of the next and for the decoder alike.

Several codes a position (stage1.codes_per_position, n of them) lie side by side in the code map, so that
raster order, in which the prior models them, takes those of a position one after the other. Each stands for
a vector of its own, or all for one (stage1.residual): then the vectors are not as wide as the code map.

Legend: B images, C channels, H x W their size, D size of a code, h x w a code map: of the finest level h = H
/ factor, w = n * W / factor.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from vqprior.configs import from_tree
from vqprior.configs.errors import UserError
from vqprior.configs.schema import Config, Trained
from vqprior.runtime import checkpoint
from vqprior.runtime.checkpoint import Checkpoint, Tensors
from vqprior.runtime.codes import Codes, Level
from vqprior.runtime.lineage import ENCODES_AS, codes_origin, encodes_as
from vqprior.runtime.run_dir import RunDir, checkpoint_folders

from .likelihood import LIKELIHOODS
from .networks import Decoder, Encoder
from .quantizers import QUANTIZERS, Quantized, build


class VQVAEOutput(NamedTuple):
    """What `forward` gives."""

    prediction: Tensor  # [B, P, H, W] the decoder's output, which `VQVAE.likelihood` reads
    quantized: tuple[Quantized, ...]  # of each level


class VQVAE(nn.Module):
    """Images <-> maps of codes.

    Args:
        config: of the run; the data section gives the size and channels of an image, stage1 the rest.
    """

    def __init__(self, config: Config):
        super().__init__()
        stage1, self.channels = config.stage1, config.data.channels
        self.image_size = config.data.size
        self.levels = levels_of(config)
        self.likelihood = LIKELIHOODS[stage1.likelihood](self.channels)
        kind, finer = QUANTIZERS[stage1.quantizer], range(1, stage1.levels)
        self.vectors_per_position = stage1.vectors_per_position
        inner = self.vectors_per_position * kind.code_size(stage1)  # channels of a position
        width = stage1.width
        shape = dict(width=width, blocks=stage1.blocks, block_width=stage1.block_width)
        halvings, enlarged = stage1.factor.bit_length() - 1, width if stage1.levels > 1 else 0

        self.encoder = Encoder(self.channels, inner, halvings=halvings, beside=enlarged, **shape)
        self.quantizers = nn.ModuleList(build(stage1) for _ in self.levels)
        self.decoder = Decoder(self.likelihood.outputs, inner + enlarged, halvings=halvings, **shape)
        # Of each level but the finest: what makes it of the features of the next, and enlarges its codes
        self.coarser = nn.ModuleList(
            Encoder(width, inner, halvings=1, beside=width if level > 1 else 0, **shape) for level in finer
        )
        self.enlarge = nn.ModuleList(
            Decoder(width, inner + (width if level > 1 else 0), halvings=1, **shape) for level in finer
        )

    @property
    def K(self) -> int:
        """Number of codes of each level."""
        return self.levels[-1].K

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    def undecayed(self) -> set[str]:
        """Names of the parameters that weight decay leaves alone, biases aside: those of the quantizers."""
        return {f"quantizers.{name}" for name, _ in self.quantizers.named_parameters()}

    def exact_tensors(self) -> set[str]:
        """Names of the tensors that an export in 16 bits leaves as they are: small, and they choose codes."""
        return {f"quantizers.{name}" for name in self.quantizers.state_dict()}

    @staticmethod
    def encoding(tensors: Tensors) -> Tensors:
        """Of the tensors by name those that make the codes: all but the decoder's. (What enlarges a coarser
        level is seen by the finer one's quantizer.)"""
        return {name: x for name, x in tensors.items() if not name.startswith("decoder.")}

    def learns(self, what: Trained) -> None:
        """Let the gradient move all, or the decoder alone."""
        self.requires_grad_(what == "all")
        self.decoder.requires_grad_(True)

    def encode(self, x: Tensor) -> tuple[Quantized, ...]:
        """Images [B, C, H, W] in [0, 1] -> for each level their codes [B, h, w] and what comes with them.

        Black is 0 and white 1; that is not looked at, since it would wait for the device.

        Raises:
            TypeError: they are whole numbers, such as the 0 to 255 of uint8.
            ValueError: they are of another shape.
        """
        return self._encoded(x)[0]

    def _encoded(self, x: Tensor) -> tuple[tuple[Quantized, ...], Tensor | None]:
        """What `encode` gives, and the coarser levels as the decoder sees them, [B, width, h, w]."""
        self._check(x)
        # Features, finest first
        features = [self.encoder.features(x - 0.5)]
        for encoder in reversed(self.coarser):
            features.append(encoder.features(features[-1]))

        # Codes, coarsest first: each level knows what those above it say
        quantized, above = [], None
        for encoder, quantizer in zip((*self.coarser, self.encoder), self.quantizers, strict=True):
            z = encoder.outputs(features.pop(), above)
            quantized.append(quantizer(self._in_a_row(z)))
            if len(quantized) < len(self.levels):
                above = self._enlarged(len(quantized) - 1, quantized[-1].z_q, above)
        return tuple(quantized), above

    def _check(self, x: Tensor) -> None:
        """Raise what `encode` raises."""
        if not x.is_floating_point():
            hint = "divide 0 to 255 by 255, or take vqprior.Tokenizer"
            raise TypeError(f"the VQ-VAE takes images in [0, 1], got {x.dtype}: {hint}")
        if x.ndim != 4 or x.shape[1:] != (self.channels, *self.image_size):
            expected = [self.channels, *self.image_size]
            raise ValueError(f"the VQ-VAE takes images [B, C, H, W], C, H, W {expected}, got {list(x.shape)}")

    def predict(self, z_q: Sequence[Tensor]) -> Tensor:
        """Code vectors [B, D, h, w] of each level -> what the decoder says of the image, [B, P, H, W], at
        least fp32; see likelihood.py."""
        above = None
        for level, of_level in enumerate(z_q[:-1]):
            above = self._enlarged(level, of_level, above)
        return self._predicted(z_q[-1], above)

    def _predicted(self, z_q: Tensor, above: Tensor | None) -> Tensor:
        """`predict` of the finest level's vectors and of the coarser levels, enlarged."""
        prediction = self.decoder(self._beside(z_q, above))
        return prediction.to(torch.promote_types(prediction.dtype, torch.float32))

    def _enlarged(self, level: int, z_q: Tensor, above: Tensor | None) -> Tensor:
        """A level's vectors [B, D, h, w] with the levels above it, [B, width, h, w], at the size of the next:
        [B, width, 2h, 2w]."""
        return self.enlarge[level](self._beside(z_q, above))

    def _beside(self, z_q: Tensor, above: Tensor | None) -> Tensor:
        """What a decoder sees, in its own type: the vectors of each position, and what the levels above say
        there."""
        n = self.vectors_per_position
        if n > 1:
            z_q = rearrange(z_q, "b d h (w n) -> b (n d) h w", n=n)
        seen = z_q if above is None else torch.cat([z_q, above], dim=1)
        return seen.to(self.dtype)  # of code vectors in 32 bits, where the networks have 16

    def _in_a_row(self, z: Tensor) -> Tensor:
        """The vectors of each position side by side, as they lie in the code map."""
        n = self.vectors_per_position
        return rearrange(z, "b (n d) h w -> b d h (w n)", n=n) if n > 1 else z

    def decode(self, z_q: Sequence[Tensor]) -> Tensor:
        """Code vectors [B, D, h, w] of each level -> images [B, C, H, W], about [0, 1] (not cut off)."""
        return self.likelihood.image(self.predict(z_q))

    def embed(self, codes: Codes) -> tuple[Tensor, ...]:
        """The code vectors [B, D, h, w] of each level."""
        pairs = zip(self.quantizers, codes, strict=True)
        return tuple(quantizer.embed(of_level) for quantizer, of_level in pairs)

    def decode_codes(self, codes: Codes) -> Tensor:
        """Codes -> images [B, C, H, W], about [0, 1]."""
        return self.decode(self.embed(codes))

    def forward(self, x: Tensor) -> VQVAEOutput:
        """Images [B, C, H, W] in [0, 1] -> predictions and codes, for `objective`; changes no state.

        Raises:
            TypeError, ValueError: as `encode`.
        """
        quantized, above = self._encoded(x)
        return VQVAEOutput(self._predicted(quantized[-1].z_q, above), quantized)


def levels_of(config: Config) -> tuple[Level, ...]:
    """The maps of codes of an image, coarsest first."""
    stage1, n = config.stage1, config.stage1.codes_per_position
    factors = [stage1.factor * 2**index for index in reversed(range(stage1.levels))]
    height, width = config.data.size
    return tuple(Level(stage1.K, height // factor, n * (width // factor), n) for factor in factors)


def vectors_of(quantized: Sequence[Quantized]) -> tuple[Tensor, ...]:
    """The code vectors [B, D, h, w] of each level."""
    return tuple(of_level.z_q for of_level in quantized)


def codes_of(quantized: Sequence[Quantized]) -> Codes:
    """The codes of each level."""
    return tuple(of_level.codes for of_level in quantized)


def load_vqvae(saved: Checkpoint, device: torch.device) -> VQVAE:
    """The model of a checkpoint, rebuilt from the configuration it carries, for evaluation.

    Raises:
        UserError: the checkpoint is not one of stage one or of this version, or does not make the codes that
            it says.
    """
    if saved.meta.get("stage") != "stage1":
        raise UserError(f"{saved.path} is a checkpoint of {saved.meta.get('stage')}, expected one of stage1")
    model, tensors = VQVAE(from_tree(saved.meta["config"])), saved.tensors(saved.weights)
    kept = saved.meta.get(ENCODES_AS)
    if kept and checkpoint.fingerprint_of(model.encoding(tensors)) != kept["encoding"]:
        raise UserError(
            f"{saved.path} says that it makes the codes of the VQ-VAE {kept['vqvae'][:12]}, and its encoder "
            "or its quantizers are others: its files do not belong together"
        )
    checkpoint.load_into(model, tensors, saved)
    return model.to(device).eval().requires_grad_(False)


def vqvae_of(run: RunDir, warn: Callable[[str], None] = print) -> Checkpoint:
    """The VQ-VAE of a run: the one whose codes its prior or its code maps are, else the best checkpoint.

    Raises:
        UserError: there is none, or none with those codes.
    """
    origin = codes_origin(run)
    return find_vqvae(run.stage1, origin["vqvae"], warn) if origin else checkpoint.best(run.stage1)


def find_vqvae(folder: Path, fingerprint: str, warn: Callable[[str], None] = print) -> Checkpoint:
    """The checkpoint in a folder that makes the codes of the weights with this fingerprint: it has these
    weights, or is the best of those that have another decoder (stage1.train).

    Raises:
        UserError: there is none: the codes or the prior at hand came from another one.
    """
    of_codes: list[Checkpoint] = []
    for path in reversed(checkpoint_folders(folder)):
        try:
            saved = checkpoint.read(path, verify=False)
        except UserError as error:
            warn(str(error))
            continue
        if encodes_as(saved)["vqvae"] == fingerprint:
            of_codes.append(saved)
    if of_codes:
        return checkpoint.read((checkpoint.best_of(of_codes) or of_codes[0]).path)
    raise UserError(
        f"the code maps and the prior were made with the VQ-VAE {fingerprint[:12]}, and no checkpoint in "
        f"{folder} is it. They do not belong together: encode and train the prior again, or give the run "
        "directory that they came from"
    )
