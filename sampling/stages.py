"""The two networks of a run, loaded once, and passes of many maps through them in chunks of one size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Drawing, Precision, Sample
from vqprior.runtime import checkpoint
from vqprior.runtime.devices import convolutions
from vqprior.runtime.launch import AUTOCAST, autocast
from vqprior.runtime.processes import device_for
from vqprior.runtime.run_dir import RunDir
from vqprior.runtime.transfer import onto
from vqprior.stage1_vqvae.vqvae import VQVAE
from vqprior.stage2_prior.measure import log2_prob
from vqprior.stage2_prior.pixelcnn import PixelCNN, load_prior

from . import self_check
from .batch_size import automatic
from .choice import Choice, Setting, check, of_maps
from .labels import label_of_text
from .noise import Noise, gumbel_noise, noise_on
from .sampler import Prior, guided, sample_by_full_forwards, sample_cached
from .tokenizer import Tokenizer, in_chunks
from .workspace import Spare, Workspace


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
        self._spare = Spare()

    @classmethod
    def from_run(cls, run: str | Path, device: torch.device | str | None = None) -> Self:
        """The networks of a run directory: the best checkpoints of both stages, on the device.

        The device is in the words of --device, or one of torch's; without it a GPU where there is one.

        Raises:
            UserError: a stage is missing, the prior was trained on codes of another VQ-VAE, or there is no such device.
        """
        places = RunDir(Path(run))
        defaults = places.config().sample
        found = checkpoint.best(places.stage2)
        device = device_for(device)
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

    def batch_size_of(self, settings: Drawing) -> int:
        """Images drawn at once: as many as the settings say, and for `auto` as many as suit this device."""
        return automatic(self.prior, self.vqvae) if settings.batch_size == "auto" else settings.batch_size

    def release(self) -> None:
        """Give back the memory that maps were drawn in; the next ones take it anew."""
        self._spare.clear()

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
            UserError: guidance for a prior that was not trained for it, or tf32 on a device that has none.
        """
        self.check_guidance(guidance)
        height, width = self.vqvae.map_size
        given = dict(maps=len(images), height=height, width=width, known=None if known is None else onto(known, self.device))
        choice, labels = choice or Choice(), None if labels is None else onto(labels, self.device)
        with convolutions(self.device, precision), self._spare.lent() as workspace:
            noise = self._noise(seed, images, workspace)
            if not self_check.caches(self.device):
                prior = self._in_full(guidance, precision)
                return sample_by_full_forwards(prior, labels, noise, choice, device=self.device, **given)
            dtype = AUTOCAST.get(precision)
            return sample_cached(
                self.prior, labels, noise, choice, guidance=guidance, dtype=dtype, workspace=workspace, **given
            )

    def _noise(self, seed: int, images: Tensor, workspace: Workspace) -> Noise:
        """The noise of the images with these numbers [B], on the device; made there where its integers can be trusted."""
        if not self_check.hashes(self.device):
            return noise_on(self.device, gumbel_noise(seed, images.cpu(), self.prior.K, workspace.noise))
        return gumbel_noise(seed, onto(images, self.device), self.prior.K, workspace.noise)

    def _in_full(self, guidance: Setting, precision: Precision) -> Prior:
        """The prior as a function of codes and labels, guided; each call is a full forward, or two."""

        def forward(codes: Tensor, labels: Tensor | None) -> Tensor:
            with autocast(self.device, precision):
                return self.prior(codes, labels)

        plain = not isinstance(guidance, Tensor) and guidance == 1
        return forward if plain else guided(forward, self.prior.null_label, guidance)

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
            given = None if labels is None else onto(labels[at], self.device)
            return log2_prob(self.prior, onto(codes[at], self.device), given, precision=precision)

        return in_chunks(measure, len(codes), batch_size)
