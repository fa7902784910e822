"""Two checkpoints -> new images, from Python; `generate.py` does the same to files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from configs.errors import UserError
from configs.schema import Precision, Sample
from runtime import checkpoint
from runtime.launch import AUTOCAST, autocast
from runtime.loader import padded
from runtime.pictures import to_uint8
from runtime.processes import device_of_process
from runtime.run_dir import RunDir
from stage1_vqvae.vqvae import VQVAE, find_vqvae, load_vqvae
from stage2_prior.pixelcnn import PixelCNN, load_prior

from .noise import gumbel_noise
from .sampler import Choice, sample_cached

Label = int | str


def label_number(label: Label, label_names: Sequence[str]) -> int:
    """The number of a class given by its name or number.

    Raises:
        UserError: there is no such class, or there are no classes.
    """
    if not label_names:
        raise UserError(f"label {label!r} was given, but the prior is unconditional: its data had no classes")
    if str(label) in label_names:
        return list(label_names).index(str(label))
    if str(label).isdigit() and int(label) < len(label_names):
        return int(label)
    raise UserError(f"there is no class {label!r}; the classes are " + ", ".join(f"{i} {n}" for i, n in enumerate(label_names)))


class Generator:
    """Draws images from a prior and decodes them.

    Args:
        vqvae: stage one, for evaluation.
        prior: stage two, trained on the codes of this very VQ-VAE.
        label_names: the classes' names, empty for an unconditional prior.
        defaults: what `sample` takes where it is not told otherwise; those of the run's configuration in `from_run`.
    """

    def __init__(
        self, vqvae: VQVAE, prior: PixelCNN, label_names: Sequence[str] = (), *, defaults: Sample | None = None
    ):  # fmt: skip
        if prior.K != vqvae.K:
            raise UserError(f"the prior has K={prior.K} codes and the VQ-VAE K={vqvae.K}: they do not belong together")
        self.vqvae, self.prior, self.label_names = vqvae, prior, tuple(label_names)
        self.defaults = defaults or Sample()

    @classmethod
    def from_run(cls, run: str | Path, device: torch.device | str | None = None) -> "Generator":
        """The generator of a run directory, with the best checkpoints of both stages.

        Raises:
            UserError: a stage is missing, or the prior was trained on codes of another VQ-VAE.
        """
        places = RunDir(Path(run))
        defaults = places.config().sample
        found = checkpoint.best(places.stage2)
        device = torch.device(device) if device is not None else device_of_process()
        origin = found.meta["codes"]
        vqvae = load_vqvae(find_vqvae(places.stage1, origin["vqvae"]), device)
        return cls(vqvae, load_prior(found, device), origin["label_names"], defaults=defaults)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.vqvae.device

    def labels_for(self, images: Tensor, label: Label | None = None) -> Tensor | None:
        """Labels [N] of the images with these numbers [N]: the one asked for, or the classes in turn."""
        if label is not None:
            return torch.full_like(images, label_number(label, self.label_names))
        return images % len(self.label_names) if self.label_names else None

    def check_guidance(self, guidance: float) -> None:
        """Refuse guidance, other than 1, of a prior that was not trained for it with a UserError."""
        if guidance != 1 and self.prior.null_label is None:
            raise UserError(
                f"guidance is {guidance}, but the prior was not trained for it: "
                "that takes classes and stage2.label_dropout above 0"
            )

    def sample_codes(
        self, images: Tensor, labels: Tensor | None, *, seed: int = 0, choice: Choice | None = None, guidance: float = 1.0,
        precision: Precision = "no",
    ) -> Tensor:  # fmt: skip
        """Code maps [B, h, w] int64 of the images with these numbers [B], given labels [B], in one pass.

        Raises:
            UserError: guidance for a prior that was not trained for it.
        """
        self.check_guidance(guidance)
        height, width = self.vqvae.map_size
        images = images.to(self.device)
        labels = None if labels is None else labels.to(self.device)

        return sample_cached(
            self.prior, labels, gumbel_noise(seed, images, self.prior.K), choice or Choice(),
            maps=len(images), height=height, width=width, guidance=guidance, dtype=AUTOCAST.get(precision),
        )  # fmt: skip

    @torch.no_grad()
    def decode(self, codes: Tensor, *, precision: Precision = "no") -> Tensor:
        """Code maps [B, h, w] -> images [B, C, H, W] uint8 on the CPU."""
        with autocast(self.device, precision):
            return to_uint8(self.vqvae.decode_codes(codes.to(self.device)))

    def draw(
        self, images: Tensor, labels: Tensor | None, *, batch_size: int, seed: int = 0, choice: Choice | None = None,
        guidance: float = 1.0, precision: Precision = "no",
    ) -> Tensor:  # fmt: skip
        """Images [N, C, H, W] uint8 with these numbers [N] and labels [N].

        They are drawn in chunks of one padded size, so that no product changes its shape: image i is image i, whatever
        others are drawn with it.
        """
        drawn = []
        for chunk in torch.arange(len(images)).split(batch_size):
            indices = padded(chunk, batch_size)
            codes = self.sample_codes(
                images[indices], None if labels is None else labels[indices], seed=seed, choice=choice, guidance=guidance,
                precision=precision,
            )  # fmt: skip
            drawn.append(self.decode(codes, precision=precision)[: len(chunk)])
        return torch.cat(drawn)

    def sample(
        self, n: int | None = None, *, labels: Sequence[Label] | Label | None = None, seed: int = 0,
        guidance: float | None = None, temperature: float | None = None, top_k: int | None = None, top_p: float | None = None,
        batch_size: int | None = None, precision: Precision | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Draw images 0 to n-1 of a seed: the same as `vqprior sample` writes.

        Args:
            n: number of images; without it as many as there are labels.
            labels: one for each image, or one for all, by name or number; without it the classes in turn.
            guidance, temperature, top_k, top_p, batch_size, precision: as for `vqprior sample`; `defaults` where not given.

        Returns:
            uint8 [n, H, W, C].

        Raises:
            UserError: an unknown class, or labels that do not match `n`.
        """
        each = None if labels is None or isinstance(labels, (int, str)) else list(labels)
        if each is not None and n not in (None, len(each)):
            raise UserError(f"n is {n}, but there are {len(each)} labels; give one label for each image")
        if n is None and each is None:
            raise UserError("say how many images: n, or one label for each image")
        numbers = torch.arange(len(each) if each is not None else n)
        if each is not None:
            chosen = torch.tensor([label_number(label, self.label_names) for label in each], dtype=torch.int64)
        else:
            chosen = self.labels_for(numbers, labels)
        given = dict(guidance=guidance, temperature=temperature, top_k=top_k, top_p=top_p, batch_size=batch_size)
        given["precision"] = precision
        try:
            how = replace(self.defaults, **{name: value for name, value in given.items() if value is not None}, n=len(numbers))
        except ValueError as error:
            raise UserError(str(error)) from error
        images = self.draw(
            numbers, chosen, batch_size=how.batch_size, seed=seed, choice=Choice(how.temperature, how.top_k, how.top_p),
            guidance=how.guidance, precision=how.precision,
        )  # fmt: skip
        return images.permute(0, 2, 3, 1).numpy()
