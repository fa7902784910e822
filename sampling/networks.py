"""The two networks of a run, loaded once, and passes of many maps through them in chunks of one size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Drawing, Precision
from vqprior.runtime import checkpoint
from vqprior.runtime.devices import convolutions
from vqprior.runtime.launch import AUTOCAST
from vqprior.runtime.loader import padded
from vqprior.runtime.processes import device_for
from vqprior.runtime.run_dir import RunDir
from vqprior.runtime.transfer import onto
from vqprior.stage1_vqvae.vqvae import VQVAE
from vqprior.stage2_prior.measure import log2_prob
from vqprior.stage2_prior.prior import Prior
from vqprior.stage2_prior.priors import load_prior

from . import self_check
from .batch_size import automatic
from .choice import Sampling, Setting
from .labels import label_of_text
from .noise import Noise, gumbel_noise, noise_on
from .sampler import rows
from .tokenizer import Tokenizer, in_chunks
from .workspace import Spare, Workspace


class Networks:
    """A VQ-VAE and the prior over its codes.

    Args:
        vqvae: stage one, for evaluation, or a tokenizer with it.
        prior: stage two, trained on the codes of this very VQ-VAE.
        label_names: the classes' names, empty for an unconditional prior.
    """

    def __init__(self, vqvae: VQVAE | Tokenizer, prior: Prior, label_names: Sequence[str] = ()):
        self.tokenizer = vqvae if isinstance(vqvae, Tokenizer) else Tokenizer(vqvae)
        if prior.K != self.tokenizer.K:
            found = f"the prior has K={prior.K} codes and the VQ-VAE K={self.tokenizer.K}"
            raise UserError(f"{found}: they do not belong together")
        self.prior, self.label_names = prior, tuple(label_names)
        self._spare = Spare()

    @classmethod
    def from_run(cls, run: str | Path, device: torch.device | str | None = None) -> Self:
        """The networks of a run directory: the best checkpoints of both stages, on the device.

        The device is in the words of --device, or one of torch's; without it a GPU where there is one.

        Raises:
            UserError: a stage is missing, the prior was trained on codes of another VQ-VAE, or there is no
                such device.
        """
        found = checkpoint.best(RunDir(Path(run)).stage2)
        device = device_for(device)
        tokenizer = Tokenizer.from_run(run, device)
        return cls(tokenizer, load_prior(found, device), found.meta["codes"]["label_names"])

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
        others = torch.as_tensor(guidance).flatten()
        others = others[others != 1].tolist()
        if others and self.prior.null_label is None:
            raise UserError(
                f"guidance is {others[0]:g}, but the prior was not trained for it: "
                "that takes classes and stage2.label_dropout above 0"
            )

    @torch.no_grad()
    def codes(
        self,
        images: Tensor,
        labels: Tensor | None,
        sampling: Sampling,
        known: Tensor | None = None,
    ) -> Tensor:
        """Code maps [N, h, w] int64 on the device of the images with these numbers [N], given labels [N].

        Args:
            known: codes [N, h, w] to keep, -1 where one is to be drawn.

        Raises:
            UserError: guidance for a prior that was not trained for it, or tf32 on a device that has none.
        """
        self.check_guidance(sampling.choice.guidance)
        height, width = self.vqvae.map_size
        codes = torch.empty(len(images), height, width, dtype=torch.int64, device=self.device)
        for chunk in torch.arange(len(images)).split(sampling.batch_size):
            at = padded(chunk, sampling.batch_size)
            some, kept = (None if x is None else onto(x[at], self.device) for x in (labels, known))
            choice = sampling.choice.of_maps(at, self.device)
            part = codes[chunk[0] : chunk[-1] + 1]
            with convolutions(self.device, sampling.precision), self._spare.lent() as workspace:
                noise = self._noise(sampling.seed, images[at], workspace)
                how = dict(maps=len(at), dtype=AUTOCAST.get(sampling.precision))
                cache = workspace.cache(
                    self.prior, some, choice, in_full=not self_check.caches(self.device), **how
                )
                for i, row in enumerate(rows(cache, noise, choice, workspace.rows, height, kept)):
                    part[:, i] = row[: len(chunk)]
        return codes

    def _noise(self, seed: int, images: Tensor, workspace: Workspace) -> Noise:
        """The noise of the images with these numbers [B], on the device; made there where its integers can be
        trusted."""
        if not self_check.hashes(self.device):
            return noise_on(self.device, gumbel_noise(seed, images.cpu(), self.prior.K, workspace.noise))
        return gumbel_noise(seed, onto(images, self.device), self.prior.K, workspace.noise)

    def draw(self, images: Tensor, labels: Tensor | None, sampling: Sampling) -> Tensor:
        """Images [N, C, H, W] uint8 on the CPU with these numbers [N] and labels [N]; raises as `codes`."""
        return self.decode(self.codes(images, labels, sampling), sampling)

    def decode(self, codes: Tensor, sampling: Sampling) -> Tensor:
        """The images [N, C, H, W] uint8 on the CPU of code maps [N, h, w] on the device, in chunks."""
        decode = lambda at: self.tokenizer.images_of(
            codes[onto(at, codes.device)], precision=sampling.precision
        )
        return in_chunks(decode, len(codes), sampling.batch_size)

    def log2_prob(
        self,
        codes: Tensor,
        labels: Tensor | None,
        *,
        batch_size: int,
        precision: Precision = "no",
    ) -> Tensor:
        """log2 p(codes | label) [N] fp64 of maps [N, h, w] and labels [N], in chunks."""

        def measure(at: Tensor) -> Tensor:
            given = None if labels is None else onto(labels[at], self.device)
            return log2_prob(self.prior, onto(codes[at], self.device), given, precision=precision)

        return in_chunks(measure, len(codes), batch_size)
