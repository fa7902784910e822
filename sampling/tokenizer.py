"""Images <-> maps of codes, from Python: stage one alone.

Legend: N and B images, C channels, H x W their size, h x w the code map, K codes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Drawing, Precision
from vqprior.runtime.chunks import in_chunks
from vqprior.runtime.codes import Codes, Level, codes_onto, picked
from vqprior.runtime.launch import autocast, usual_device
from vqprior.runtime.lineage import codes_origin
from vqprior.runtime.pictures import to_float, to_uint8
from vqprior.runtime.processes import device_for
from vqprior.runtime.run_dir import RunDir
from vqprior.stage1_vqvae.vqvae import VQVAE, codes_of, load_vqvae, vqvae_of

from .arguments import Arrays, as_arrays, as_codes, as_images
from .decoding import refuse_imported


class Tokenizer:
    """A VQ-VAE as two functions on arrays: images uint8 [N, H, W, C] and codes int64 [N, h, w] in [0, K).

    Of several levels the codes are a tuple of such arrays, coarsest first.

    `Tokenizer.from_run(run, device=None)` loads that of a run, whose prior need not be there. A call changes
    nothing in it. What comes out for an image does not depend on the others, and on the batch size only up to
    rounding.

    Args:
        vqvae: for evaluation.
        batch_size: images in one pass, unless a call says it; fewer are padded to it.
        precision: autocast of the network, unless a call says it.
    """

    def __init__(self, vqvae: VQVAE, *, batch_size: int = 64, precision: Precision = "no"):
        self.vqvae, self.batch_size, self.precision = vqvae, batch_size, precision

    @classmethod
    @usual_device()
    def from_run(cls, run: str | Path, device: torch.device | str | None = None) -> Self:
        """The VQ-VAE of a run directory, on the device: in the words of --device, or torch's; a GPU where
        there is one.

        It is the one whose codes the run's prior or its code maps are, with the batch size and the precision
        of `vqprior encode`, so that the codes are those on disk; before there are any, the best checkpoint.

        Raises:
            UserError: stage one is not trained yet, or is not that which prior or code maps came from, or
                there is no such device.
        """
        places = RunDir(Path(run))
        config, origin = places.config(), codes_origin(places)
        if config.data.source == "codes":
            refuse_imported()
        device = device_for(device)
        vqvae = load_vqvae(vqvae_of(places), device)
        if config.channels_last:
            vqvae.to(memory_format=torch.channels_last)
        precision = origin["precision"] if origin else "no"
        return cls(vqvae, batch_size=config.inference_batch, precision=precision)

    @property
    def K(self) -> int:
        """Number of codes."""
        return self.vqvae.K

    @property
    def levels(self) -> tuple[Level, ...]:
        """The maps of codes of an image, coarsest first."""
        return self.vqvae.levels

    @property
    def map_size(self) -> tuple[int, int]:
        """Height h and width w of the code map, of several of the finest."""
        return self.levels[-1].size

    @property
    def image_size(self) -> tuple[int, int]:
        """Height H and width W of an image."""
        return self.vqvae.image_size

    @property
    def channels(self) -> int:
        """Channels C of an image: 1 for grey, 3 for colour."""
        return self.vqvae.channels

    @usual_device()
    def encode(
        self,
        images: np.ndarray | Tensor,
        *,
        batch_size: int | None = None,
        precision: Precision | None = None,
    ) -> Arrays:
        """The codes int64 [N, h, w] of images uint8 [N, H, W, C]; of several levels a tuple of them.

        Raises:
            UserError: they are of another type, shape or size.
        """
        given, settings = as_images(images, self.vqvae), self._settings(batch_size, precision)
        encode = lambda at: self.codes_of(given[at], precision=settings.precision)
        return as_arrays(in_chunks(encode, len(given), settings.batch_size))

    @usual_device()
    def decode(
        self,
        codes: Arrays | Tensor | Sequence[Tensor],
        *,
        batch_size: int | None = None,
        precision: Precision | None = None,
    ) -> np.ndarray:
        """The images uint8 [N, H, W, C] of codes, integers [N, h, w] in [0, K); of several levels as many.

        Raises:
            UserError: they are of another type, shape or size, or out of their range.
        """
        given, settings = as_codes(codes, self.levels), self._settings(batch_size, precision)
        decode = lambda at: self.images_of(picked(given, at), precision=settings.precision)
        return in_chunks(decode, len(given[0]), settings.batch_size).permute(0, 2, 3, 1).numpy()

    def reconstruct(
        self,
        images: np.ndarray | Tensor,
        *,
        batch_size: int | None = None,
        precision: Precision | None = None,
    ) -> np.ndarray:
        """What decoding the codes of images uint8 [N, H, W, C] gives: uint8 [N, H, W, C].

        Raises:
            UserError: as `encode`.
        """
        codes = self.encode(images, batch_size=batch_size, precision=precision)
        return self.decode(codes, batch_size=batch_size, precision=precision)

    @torch.no_grad()
    def codes_of(self, images: Tensor, *, precision: Precision = "no") -> Codes:
        """Images [B, C, H, W] uint8 -> their codes on the CPU, in one pass."""
        with autocast(self.vqvae.device, precision):
            x = to_float(images, self.vqvae.device).to(self.vqvae.dtype)
            codes = codes_of(self.vqvae.encode(x))
        return tuple(of_level.cpu() for of_level in codes)

    @torch.no_grad()
    def images_of(self, codes: Codes, *, precision: Precision = "no") -> Tensor:
        """Codes -> images [B, C, H, W] uint8 on the CPU, in one pass."""
        with autocast(self.vqvae.device, precision):
            return to_uint8(self.vqvae.decode_codes(codes_onto(codes, self.vqvae.device)))

    def _settings(self, batch_size: int | None, precision: Precision | None) -> Drawing:
        """What a call says of the passes, else what this tokenizer has."""
        size = self.batch_size if batch_size in (None, "auto") else batch_size
        try:
            return Drawing(batch_size=size, precision=self.precision if precision is None else precision)
        except (TypeError, ValueError) as error:
            raise UserError(str(error)) from error
