"""The two networks of a run, loaded once, and passes of many maps through them in chunks of one size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Precision, Sample
from vqprior.runtime import checkpoint
from vqprior.runtime.launch import AUTOCAST
from vqprior.runtime.processes import device_of_process
from vqprior.runtime.run_dir import RunDir
from vqprior.stage1_vqvae.vqvae import VQVAE
from vqprior.stage2_prior.measure import log2_prob
from vqprior.stage2_prior.pixelcnn import PixelCNN, load_prior

from .choice import Choice, Setting, check, of_maps
from .labels import label_of_text
from .noise import gumbel_noise
from .sampler import sample_cached
from .tokenizer import Tokenizer, in_chunks


class Stages:
    """A VQ-VAE and the prior over its codes.

    Args:
        vqvae: stage one, for evaluation, or a tokenizer with it.
        prior: stage two, trained on the codes of this very VQ-VAE.
        label_names: the classes' names, empty for an unconditional prior.
        defaults: of the settings that a call does not give; those of the run's configuration in `from_run`.
    """

    def __init__(
        self,
        vqvae: VQVAE | Tokenizer,
        prior: PixelCNN,
        label_names: Sequence[str] = (),
        *,
        defaults: Sample | None = None,
    ):
        self.tokenizer = vqvae if isinstance(vqvae, Tokenizer) else Tokenizer(vqvae)
        if prior.K != self.tokenizer.K:
            found = f"the prior has K={prior.K} codes and the VQ-VAE K={self.tokenizer.K}"
            raise UserError(f"{found}: they do not belong together")
        self.prior, self.label_names = prior, tuple(label_names)
        self.defaults = defaults or Sample()

    @classmethod
    def from_run(cls, run: str | Path, device: torch.device | str | None = None) -> Self:
        """The networks of a run directory: the best checkpoints of both stages, on the device (a GPU where there is one).

        Raises:
            UserError: a stage is missing, or the prior was trained on codes of another VQ-VAE.
        """
        places = RunDir(Path(run))
        defaults = places.config().sample
        found = checkpoint.best(places.stage2)
        device = torch.device(device) if device is not None else device_of_process()
        tokenizer = Tokenizer.from_run(run, device)
        label_names = found.meta["codes"]["label_names"]
        return cls(tokenizer, load_prior(found, device), label_names, defaults=defaults)

    @property
    def vqvae(self) -> VQVAE:
        """Stage one."""
        return self.tokenizer.vqvae

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.vqvae.device

    def labels_for(self, images: Tensor, label: str = "") -> Tensor | None:
        """Labels [N] of the images with these numbers [N]: the class that `--label` means, or all in turn."""
        if label:
            return torch.full_like(images, label_of_text(label, self.label_names))
        return images % len(self.label_names) if self.label_names else None

    def check_guidance(self, guidance: Setting) -> None:
        """Refuse guidance, other than 1, of a prior that was not trained for it with a UserError."""
        check("guidance", guidance, lambda g: g >= 0, "at least 0 (1 leaves the prior as it is)")
        others = guidance[guidance != 1].tolist() if isinstance(guidance, Tensor) else [guidance] * (guidance != 1)
        if others and self.prior.null_label is None:
            raise UserError(
                f"guidance is {others[0]:g}, but the prior was not trained for it: "
                "that takes classes and stage2.label_dropout above 0"
            )

    def sample_codes(
        self, images: Tensor, labels: Tensor | None, *, seed: int = 0, choice: Choice | None = None, guidance: Setting = 1.0,
        precision: Precision = "no", known: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Code maps [B, h, w] int64 of the images with these numbers [B], given labels [B], in one pass.

        Args:
            choice, guidance: numbers, or tensors [B] on the device.
            known: codes [B, h, w] to keep, -1 where one is to be drawn.

        Raises:
            UserError: guidance for a prior that was not trained for it.
        """
        self.check_guidance(guidance)
        height, width = self.vqvae.map_size
        images, labels, known = (None if x is None else x.to(self.device) for x in (images, labels, known))
        return sample_cached(
            self.prior, labels, gumbel_noise(seed, images, self.prior.K), choice or Choice(), maps=len(images),
            height=height, width=width, guidance=guidance, dtype=AUTOCAST.get(precision), known=known,
        )  # fmt: skip

    def draw_codes(
        self, images: Tensor, labels: Tensor | None, *, batch_size: int, seed: int = 0, choice: Choice | None = None,
        guidance: Setting = 1.0, precision: Precision = "no", known: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """`sample_codes` of any number of images [N], in chunks; choice and guidance are numbers or tensors [N] on the CPU."""
        choice = choice or Choice()

        def draw(at: Tensor) -> Tensor:
            return self.sample_codes(
                images[at], None if labels is None else labels[at], seed=seed, choice=choice.of_maps(at, self.device),
                guidance=of_maps(guidance, at, self.device), precision=precision, known=None if known is None else known[at],
            )  # fmt: skip

        return in_chunks(draw, len(images), batch_size)

    def draw(
        self, images: Tensor, labels: Tensor | None, *, batch_size: int, seed: int = 0, choice: Choice | None = None,
        guidance: Setting = 1.0, precision: Precision = "no",
    ) -> Tensor:  # fmt: skip
        """Images [N, C, H, W] uint8 with these numbers [N] and labels [N], in chunks; arguments as for `draw_codes`."""
        codes = self.draw_codes(
            images, labels, batch_size=batch_size, seed=seed, choice=choice, guidance=guidance, precision=precision
        )
        decode = lambda at: self.tokenizer.images_of(codes[at], precision=precision)
        return in_chunks(decode, len(codes), batch_size)

    def log2_prob(self, codes: Tensor, labels: Tensor | None, *, batch_size: int, precision: Precision = "no") -> Tensor:
        """log2 p(codes | label) [N] fp64 of maps [N, h, w] and labels [N], in chunks."""

        def measure(at: Tensor) -> Tensor:
            given = None if labels is None else labels[at].to(self.device)
            return log2_prob(self.prior, codes[at].to(self.device), given, precision=precision)

        return in_chunks(measure, len(codes), batch_size)
