"""The two networks of a run, loaded once, and passes of many maps through them in chunks of one size."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from vqprior.configs.errors import UserError, command_line
from vqprior.configs.schema import Drawing, Precision
from vqprior.runtime import checkpoint, graph
from vqprior.runtime.checkpoint import Checkpoint
from vqprior.runtime.chunks import chunks, in_chunks
from vqprior.runtime.codes import Codes, Level, codes_onto, in_words, picked
from vqprior.runtime.devices import convolutions
from vqprior.runtime.launch import AUTOCAST, autocast
from vqprior.runtime.processes import device_for
from vqprior.runtime.run_dir import RunDir
from vqprior.runtime.transfer import onto
from vqprior.stage1_vqvae.vqvae import VQVAE
from vqprior.stage2_prior.measure import log2_prob_of_levels
from vqprior.stage2_prior.prior import Prior
from vqprior.stage2_prior.priors import load_prior

from . import self_check
from .batch_size import automatic
from .choice import Sampling, Setting
from .decoding import Imported, refuse_imported
from .labels import label_of_text
from .noise import Noise, gumbel_noise, noise_on
from .parallel import Given, Round, rounds, settled_maps
from .sampler import full_logits
from .tokenizer import Tokenizer
from .verify import Judged, Verified, verified
from .workspace import Spare, Workspace

FEW, MANY_PLACES = 16, 256
"""So few images of so many codes settle faster in parallel on a CUDA GPU than code by code: measured, see
docs/sampling.md."""


class Networks:
    """A VQ-VAE and the priors over its codes, one a level.

    Args:
        vqvae: stage one, for evaluation, or a tokenizer with it; or what shows imported codes.
        priors: stage two, trained on the codes of this very VQ-VAE: that of the one level, or those of all,
            coarsest first.
        label_names: the classes' names, empty for unconditional priors.

    Raises:
        UserError: they are of other maps of codes, or of another number of classes.
    """

    def __init__(
        self,
        vqvae: VQVAE | Tokenizer | Imported,
        priors: Prior | Sequence[Prior],
        label_names: Sequence[str] = (),
    ):
        self.tokenizer = vqvae if isinstance(vqvae, Tokenizer | Imported) else Tokenizer(vqvae)
        self.priors = (priors,) if isinstance(priors, Prior) else tuple(priors)
        self.label_names = tuple(label_names)
        theirs, ours = tuple(prior.level for prior in self.priors), self.tokenizer.levels
        if theirs != ours:
            found = f"the prior is of {in_words(theirs)}, and the VQ-VAE of {in_words(ours)}"
            raise UserError(f"{found}: they do not belong together")
        for prior in self.priors:
            if prior.classes != len(self.label_names):
                found = f"the prior has {prior.classes} classes, and {len(self.label_names)} have names"
                raise UserError(f"{found}: give label_names, one for each class in the order of the numbers")
        self._spares = [Spare() for _ in self.priors]

    @classmethod
    def from_run(cls, run: str | Path, device: torch.device | str | None = None) -> Self:
        """The networks of a run directory: the best checkpoints of both stages and all levels, on the
        device.

        The device is in the words of --device, or one of torch's; without it a GPU where there is one.

        Raises:
            UserError: a stage is missing, the prior was trained on codes of another VQ-VAE, or there is no
                such device.
        """
        config = RunDir(Path(run)).config()  # which refuses what is no run
        saved = prior_checkpoints(RunDir(Path(run)))
        device, codes = device_for(device), saved[0].meta["codes"]
        priors = [load_prior(of_level, device) for of_level in saved]
        if config.data.source == "codes":
            shown: Tokenizer | Imported = Imported.of(config, [Level(**level) for level in codes["levels"]])
        else:
            shown = Tokenizer.from_run(run, device)
        return cls(shown, priors, codes["label_names"])

    @property
    def vqvae(self) -> VQVAE:
        """Stage one.

        Raises:
            UserError: there is none, since the codes were imported.
        """
        if isinstance(self.tokenizer, Imported):
            refuse_imported()
        return self.tokenizer.vqvae

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.priors[0].device

    @property
    def null_label(self) -> int | None:
        """The label that says none, where the priors of all levels know it."""
        labels = {prior.null_label for prior in self.priors}
        return None if None in labels else labels.pop()

    def batch_size_of(self, settings: Drawing) -> int:
        """Images drawn at once: as many as the settings say, and for `auto` as many as suit this device."""
        vqvae = None if isinstance(self.tokenizer, Imported) else self.vqvae
        if settings.batch_size != "auto":
            return settings.batch_size
        return automatic(self.priors, vqvae, settings.method)

    def release(self) -> None:
        """Give back the memory that maps were drawn in; the next ones take it anew."""
        for spare in self._spares:
            spare.clear()

    def labels_for(self, images: Tensor, label: str = "") -> Tensor | None:
        """Labels [N] of the images with these numbers [N]: the class that `--label` means, or all in turn."""
        if label:
            return torch.full_like(images, label_of_text(label, self.label_names))
        return images % len(self.label_names) if self.label_names else None

    def check_guidance(self, guidance: Setting) -> None:
        """Refuse guidance, other than 1, of a prior that was not trained for it with a UserError."""
        others = torch.as_tensor(guidance).flatten()
        others = others[others != 1].tolist()
        if others and self.null_label is None:
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
        known: Codes | None = None,
    ) -> Codes:
        """The codes, on the device, of the images with these numbers [N], given labels [N].

        The levels are drawn one after the other, coarsest first, each given those before.

        Args:
            known: codes to keep, -1 where one is to be drawn.

        Raises:
            UserError: guidance for a prior that was not trained for it, or tf32 on a device that has none.
        """
        self.check_guidance(sampling.choice.guidance)
        made = dict(dtype=torch.int64, device=self.device)
        codes = tuple(torch.empty(len(images), *prior.level.size, **made) for prior in self.priors)
        with self._apart(sampling.precision):
            if self.resolved(sampling, len(images)).method == "parallel":  # all places of a level at once
                for level, of_level in enumerate(codes):
                    all_rounds = self.rounds(level, images, labels, sampling, codes[:level], known)
                    settled_maps(all_rounds, len(images), of_level)
                return codes
            for chunk in chunks(len(images), sampling.batch_size):  # of one padded size, code by code
                *_, drawn = self._in_order(chunk.padded, images, labels, sampling, known)
                for of_level, of_chunk in zip(codes, drawn, strict=True):
                    of_level[chunk.items[0] : chunk.items[-1] + 1] = chunk.own(of_chunk)
        return codes

    @contextmanager
    def _apart(self, precision: Precision) -> Iterator[None]:
        """Inside, caches compute in the precision that they were made in, under the autocast of a caller too,
        and fp32 is what `convolutions` says; raises as that does."""
        with convolutions(self.device, precision), torch.autocast(self.device.type, enabled=False):
            yield

    def resolved(self, sampling: Sampling, images: int) -> Sampling:
        """With a method in place of `auto`, for so many images in all: all at once where that was measured to
        be faster."""
        if sampling.method != "auto":
            return sampling
        places = sum(prior.level.places for prior in self.priors)
        few = min(images, sampling.batch_size) <= FEW
        in_parallel = graph.can_record(self.device) and few and places >= MANY_PLACES
        return replace(sampling, method="parallel" if in_parallel else "cached")

    @torch.no_grad()
    def growing(
        self,
        images: Tensor,
        labels: Tensor | None,
        sampling: Sampling,
        known: Codes | None = None,
    ) -> Iterator[Codes]:
        """The codes that `codes` gives, while they are drawn: after each row, or each round of the parallel
        method; all images at once, whatever the batch size.

        `auto` is row by row here. Levels that are not begun are missing, and -1 stands where no code is
        drawn yet; what a round gives are guesses until the level has settled. The tensors are written to
        again: they are good until the next.

        Args:
            images, labels, sampling, known: as for `codes`; raises as that does.
        """
        self.check_guidance(sampling.choice.guidance)
        given = (images, labels, sampling, known)
        together = torch.arange(len(images))
        parallel = sampling.method == "parallel"
        steps = self._settling(*given) if parallel else self._in_order(together, *given)
        while True:
            with self._apart(sampling.precision):  # given back before the caller goes on
                codes = next(steps, None)
            if codes is None:
                return
            yield codes

    def _in_order(
        self,
        at: Tensor,
        images: Tensor,
        labels: Tensor | None,
        sampling: Sampling,
        known: Codes | None,
    ) -> Iterator[Codes]:
        """The codes at these places [B] among the images, code by code, after each row; see `growing`."""
        given = None if labels is None else onto(labels[at], self.device)
        kept = None if known is None else codes_onto(picked(known, at), self.device)
        choice = sampling.choice.of_maps(at, self.device)
        passes = dict(maps=len(at), dtype=AUTOCAST.get(sampling.precision))
        above: Codes = ()
        for level, prior in enumerate(self.priors):
            maps = torch.full((len(at), *prior.level.size), -1, device=self.device)
            of_known = None if kept is None else kept[level]
            in_full = sampling.method == "plain" or not self_check.caches(self.device, type(prior))
            with self._spares[level].lent() as workspace:
                noise = self._noise(level, sampling.seed, images[at], workspace)
                drawn = workspace.draw(
                    prior, given, above, noise, choice, of_known, in_full=in_full, **passes
                )
                for i, row in enumerate(drawn):
                    maps[:, i] = row
                    yield (*above, maps)
            above = (*above, maps)

    def _settling(
        self,
        images: Tensor,
        labels: Tensor | None,
        sampling: Sampling,
        known: Codes | None,
    ) -> Iterator[Codes]:
        """The codes of the images with these numbers [N], a slot each, all places at once, after each round;
        see `growing`."""
        together = replace(sampling, batch_size=len(images))
        above: Codes = ()
        for level, prior in enumerate(self.priors):
            maps = torch.full((len(images), *prior.level.size), -1, device=self.device)
            for slots, guesses, _ in self.rounds(level, images, labels, together, above, known):
                working = onto(slots >= 0, self.device)
                maps[working] = guesses[working]
                yield (*above, maps)
            above = (*above, maps)

    def rounds(
        self,
        level: int,
        images: Tensor,
        labels: Tensor | None,
        sampling: Sampling,
        above: Codes = (),
        known: Codes | None = None,
    ) -> Iterator[Round]:
        """The rounds in which a level's maps of the images with these numbers [N] settle, given labels [N]
        and the levels above; see `parallel.rounds`."""
        prior, slots = self.priors[level], min(sampling.batch_size, len(images))
        # One number where all maps share it, as the cached way has it: a guidance of ones is none
        choice = sampling.choice.of_maps(torch.arange(len(images)), torch.device("cpu"))
        given = Given(labels, above, None if known is None else known[level], choice)
        with self._spares[level].lent() as workspace:
            yield from rounds(
                workspace.slots(prior, given, slots, sampling.precision),
                given,
                lambda at: self._noise(level, sampling.seed, images[at], workspace),
                maps=len(images),
            )

    @torch.no_grad()
    def verify(
        self,
        codes: Codes,
        images: Tensor,
        labels: Tensor | None,
        sampling: Sampling,
        known: Codes | None = None,
    ) -> Verified:
        """Whether one full forward over finished maps, with their own noise, chooses the same codes.

        Args:
            codes: of the images with these numbers [N], on the device; others as for `codes`.
        """
        parts = []
        for chunk in chunks(len(images), sampling.batch_size):
            at = chunk.padded
            maps = picked(codes, onto(at, self.device))
            given = None if labels is None else onto(labels[at], self.device)
            choice, own_choice = (sampling.choice.of_maps(which, self.device) for which in (at, chunk.items))
            for level, prior in enumerate(self.priors):
                with convolutions(self.device, sampling.precision), autocast(self.device, sampling.precision):
                    of_level = maps[level], given, maps[:level]
                    logits = full_logits(prior, *of_level, prior.null_label, choice.guidance)
                drawn = torch.ones_like(maps[level], dtype=torch.bool)
                if known is not None:
                    drawn = onto(known[level][at], self.device) < 0
                with self._spares[level].lent() as workspace:
                    noise = self._noise(level, sampling.seed, images[at], workspace)
                    judged = Judged(*map(chunk.own, Judged.of(choice, logits, noise)))
                settings = own_choice.temperature, own_choice.guidance
                parts.append(verified(judged, chunk.own(maps[level]), chunk.own(drawn), *settings))
        return Verified.joined(parts)

    def _noise(self, level: int, seed: int, images: Tensor, workspace: Workspace) -> Noise:
        """The noise of a level of the images with these numbers [B], on the device; made there where its
        integers can be trusted."""
        K, memory = self.priors[level].K, workspace.noise
        if not self_check.hashes(self.device):
            return noise_on(self.device, gumbel_noise(seed, images.cpu(), K, memory, level=level))
        return gumbel_noise(seed, onto(images, self.device), K, memory, level=level)

    def draw(self, images: Tensor, labels: Tensor | None, sampling: Sampling) -> Tensor:
        """Images [N, C, H, W] uint8 on the CPU with these numbers [N] and labels [N]; raises as `codes`."""
        return self.decode(self.codes(images, labels, sampling), sampling)

    def decode(self, codes: Codes, sampling: Sampling) -> Tensor:
        """The images [N, C, H, W] uint8 on the CPU of codes on the device, in chunks."""
        decode = lambda at: self.tokenizer.images_of(
            picked(codes, onto(at, self.device)), precision=sampling.precision
        )
        return in_chunks(decode, len(codes[0]), sampling.batch_size)

    def log2_prob(
        self,
        codes: Codes,
        labels: Tensor | None,
        *,
        batch_size: int,
        precision: Precision = "no",
    ) -> Tensor:
        """log2 p(codes | label) [N] fp64 of the codes of N images and labels [N], in chunks: the sum over the
        levels, each given those above."""

        def measure(at: Tensor) -> Tensor:
            given = None if labels is None else onto(labels[at], self.device)
            here = codes_onto(picked(codes, at), self.device)
            return log2_prob_of_levels(self.priors, here, given, precision=precision)

        return in_chunks(measure, len(codes[0]), batch_size)


def prior_checkpoints(run: RunDir) -> list[Checkpoint]:
    """The best checkpoints of a run's priors, one a level, coarsest first.

    Raises:
        UserError: one is missing, or they were trained on other codes than the coarsest one's.
    """
    saved = [checkpoint.best(run.stage2)]
    codes = saved[0].meta.get("codes")
    if not codes or "levels" not in codes:
        raise UserError(
            f"the checkpoint {saved[0].path} is damaged, or of another version: it does not say which codes "
            "it is of. Begin a new run with --out"
        )
    for level in range(1, len(codes["levels"])):
        if not run.stage2_of(level).exists():
            command = command_line("train-prior", run.path, "--level", level)
            raise UserError(f"the prior of level {level} is not trained yet: {command}")
        saved.append(checkpoint.best(run.stage2_of(level)))
        if saved[-1].meta.get("codes") != codes:
            raise UserError(
                f"{saved[-1].path} was trained on other codes than {saved[0].path}; delete the folder of the "
                f"one that is not wanted and train it again: {command_line('train-prior', run.path)}"
            )
    return saved
