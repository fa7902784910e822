"""The VQ-VAE: an encoder, a quantizer and a decoder.

Neural Discrete Representation Learning, van den Oord et al. 2017, https://arxiv.org/abs/1711.00937.

Several codes a position (stage1.codes_per_position, n of them) lie side by side in the code map, so that
raster order, in which the prior models them, takes those of a position one after the other.

Legend: B images, C channels, H x W their size, D size of a code, h x w the code map: h = H / factor, w = n *
W / factor.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from vqprior.configs import from_tree
from vqprior.configs.errors import UserError
from vqprior.configs.schema import Config
from vqprior.runtime import checkpoint
from vqprior.runtime.checkpoint import Checkpoint
from vqprior.runtime.lineage import codes_origin
from vqprior.runtime.run_dir import RunDir

from .likelihood import LIKELIHOODS
from .networks import Decoder, Encoder
from .quantizers import QUANTIZERS, Quantized


class VQVAEOutput(NamedTuple):
    """What `forward` gives."""

    prediction: Tensor  # [B, P, H, W] the decoder's output, which `VQVAE.likelihood` reads
    quantized: Quantized


class VQVAE(nn.Module):
    """Images <-> maps of codes.

    Args:
        config: of the run; the data section gives the size and channels of an image, stage1 the rest.
    """

    def __init__(self, config: Config):
        super().__init__()
        stage1, self.channels = config.stage1, config.data.channels
        self.image_size = config.data.size
        self.codes_per_position = n = stage1.codes_per_position
        self.map_size = (config.data.size[0] // stage1.factor, n * (config.data.size[1] // stage1.factor))
        self.likelihood = LIKELIHOODS[stage1.likelihood](self.channels)
        networks = dict(
            levels=stage1.factor.bit_length() - 1,
            width=stage1.width,
            blocks=stage1.blocks,
            block_width=stage1.block_width,
        )
        kind = QUANTIZERS[stage1.quantizer]
        D = kind.code_size(stage1)
        self.encoder = Encoder(self.channels, n * D, **networks)
        self.quantizer = kind.build(stage1)
        self.decoder = Decoder(self.likelihood.outputs, n * D, **networks)

    @property
    def K(self) -> int:
        """Number of codes."""
        return self.quantizer.K

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def undecayed(self) -> set[str]:
        """Names of the parameters that weight decay leaves alone, biases aside: those of the quantizer."""
        return {f"quantizer.{name}" for name, _ in self.quantizer.named_parameters()}

    def exact_tensors(self) -> set[str]:
        """Names of the tensors that an export in 16 bits leaves as they are: small, and they choose codes."""
        return {f"quantizer.{name}" for name in self.quantizer.state_dict()}

    def encode(self, x: Tensor) -> Quantized:
        """Images [B, C, H, W] in [0, 1] -> their codes [B, h, w] and what comes with them.

        Black is 0 and white 1; that is not looked at, since it would wait for the device.

        Raises:
            TypeError: they are whole numbers, such as the 0 to 255 of uint8.
            ValueError: they are of another shape.
        """
        if not x.is_floating_point():
            hint = "divide 0 to 255 by 255, or take vqprior.Tokenizer"
            raise TypeError(f"the VQ-VAE takes images in [0, 1], got {x.dtype}: {hint}")
        if x.ndim != 4 or x.shape[1:] != (self.channels, *self.image_size):
            expected = [self.channels, *self.image_size]
            raise ValueError(f"the VQ-VAE takes images [B, C, H, W], C, H, W {expected}, got {list(x.shape)}")
        z = self.encoder(x - 0.5)
        if self.codes_per_position > 1:
            z = rearrange(z, "b (n d) h w -> b d h (w n)", n=self.codes_per_position)
        return self.quantizer(z)

    def predict(self, z_q: Tensor) -> Tensor:
        """Code vectors [B, D, h, w] -> what the decoder says of the image, [B, P, H, W], at least fp32; see
        likelihood.py."""
        if self.codes_per_position > 1:
            z_q = rearrange(z_q, "b d h (w n) -> b (n d) h w", n=self.codes_per_position)
        prediction = self.decoder(z_q)
        return prediction.to(torch.promote_types(prediction.dtype, torch.float32))

    def decode(self, z_q: Tensor) -> Tensor:
        """Code vectors [B, D, h, w] -> images [B, C, H, W], about [0, 1] (not cut off)."""
        return self.likelihood.image(self.predict(z_q))

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Codes [B, h, w] int64 in [0, K) -> images [B, C, H, W], about [0, 1]."""
        return self.decode(self.quantizer.embed(codes))

    def forward(self, x: Tensor) -> VQVAEOutput:
        """Images [B, C, H, W] in [0, 1] -> predictions and codes, for `objective`; changes no state.

        Raises:
            TypeError, ValueError: as `encode`.
        """
        quantized = self.encode(x)
        return VQVAEOutput(self.predict(quantized.z_q), quantized)


def load_vqvae(found: Checkpoint, device: torch.device) -> VQVAE:
    """The model of a checkpoint, rebuilt from the configuration it carries, for evaluation.

    Raises:
        UserError: the checkpoint is not one of stage one.
    """
    if found.meta.get("stage") != "stage1":
        raise UserError(f"{found.path} is a checkpoint of {found.meta.get('stage')}, expected one of stage1")
    model = VQVAE(from_tree(found.meta["config"]))
    model.load_state_dict(found.tensors(found.weights))
    return model.to(device).eval().requires_grad_(False)


def vqvae_of(run: RunDir, warn: Callable[[str], None] = print) -> Checkpoint:
    """The VQ-VAE of a run: the one whose codes its prior or its code maps are, else the best checkpoint.

    Raises:
        UserError: there is none, or none with those codes.
    """
    origin = codes_origin(run)
    return find_vqvae(run.stage1, origin["vqvae"], warn) if origin else checkpoint.best(run.stage1)


def find_vqvae(folder: Path, fingerprint: str, warn: Callable[[str], None] = print) -> Checkpoint:
    """The checkpoint in a folder whose weights have this fingerprint.

    Raises:
        UserError: no checkpoint there has it: the codes or the prior at hand came from another one.
    """
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            found = checkpoint.read(path, verify=False)
        except UserError as error:
            warn(str(error))
            continue
        if found.fingerprint == fingerprint:
            return checkpoint.read(path)
    raise UserError(
        f"the code maps and the prior were made with the VQ-VAE {fingerprint[:12]}, and no checkpoint in "
        f"{folder} is it. "
        "They do not belong together: encode and train the prior again, or give the run directory that they "
        "came from"
    )
