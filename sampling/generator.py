"""New images, completions and likelihoods from Python; `generate.py` and `complete.py` do the same to
files."""

from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Method, Precision, Sample, is_whole
from vqprior.runtime.chunks import chunks, in_chunks
from vqprior.runtime.codes import Codes, picked
from vqprior.runtime.launch import usual_device
from vqprior.runtime.run_dir import RunDir
from vqprior.stage1_vqvae.vqvae import VQVAE
from vqprior.stage2_prior.prior import Prior

from .arguments import (
    Arrays,
    Number,
    as_arrays,
    as_codes,
    as_images,
    as_mask,
    as_tensor,
    described,
    has_levels,
    per_image,
    unwrapped,
)
from .choice import Choice, Sampling
from .decoding import Imported, refuse_imported
from .labels import Label, Labels, label_list, label_number, label_numbers, listed
from .masks import fill, hidden_codes
from .networks import Networks
from .pretrained import pretrained_folder
from .score import Scored, Scores, Usual, bits_by_place, held_out, score
from .tokenizer import Tokenizer


class Completions(NamedTuple):
    """Completions of one picture, the likeliest first."""

    images: np.ndarray  # uint8 [n, H, W, C], known pixels as they were
    codes: Arrays  # int64 [n, h, w], of several levels a tuple of them
    bits: np.ndarray  # float64 [n], what all codes of each cost under the prior, given its label
    draws: np.ndarray  # int64 [n], the number of each among all draws: that of its noise, label and settings
    known: Arrays  # bool [h, w], the codes that were kept, of several levels a tuple of them


class Generator:
    """Draws images from a prior and decodes them; loaded once, it can be called again and again.

    A call changes nothing in it, and what comes out depends on the arguments alone. `Generator.from_run(run,
    device=None)` loads a run onto a device, "cpu", "cuda", "cuda:1" or "mps"; without it ("auto") a GPU where
    there is one. Images are arrays uint8 [N, H, W, C] as `sample` gives them, codes are int64 [N, h, w] in
    [0, K), of several levels a tuple of such arrays, and labels are names or numbers of classes.

    Args:
        vqvae: stage one, for evaluation, or what shows imported codes.
        prior: stage two, trained on the codes of this very VQ-VAE; of several levels the priors of all,
            coarsest first.
        label_names: the classes' names, empty for an unconditional prior.
        defaults: of the settings that a call does not give; those of the run's configuration in `from_run`.
    """

    def __init__(
        self,
        vqvae: VQVAE | Tokenizer | Imported,
        prior: Prior | Sequence[Prior],
        label_names: Sequence[str] = (),
        *,
        defaults: Sample | None = None,
    ):
        self.networks = Networks(vqvae, prior, label_names)
        self.tokenizer, self.label_names = self.networks.tokenizer, self.networks.label_names
        self.defaults = defaults or Sample()
        self.run: RunDir | None = None  # that it was loaded from

    @classmethod
    @usual_device()
    def from_run(cls, run: str | Path, device: torch.device | str | None = None) -> Self:
        """The generator of a run directory; raises as `Networks.from_run`."""
        loaded = Networks.from_run(run, device)
        places = RunDir(Path(run).absolute())  # it is read again, perhaps from another folder
        made = cls(loaded.tokenizer, loaded.priors, loaded.label_names, defaults=places.config().sample)
        made.run = places
        return made

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        device: torch.device | str | None = None,
    ) -> Self:
        """The generator of a folder that `vqprior export` wrote, or of OWNER/NAME on the Hugging Face hub, at
        a branch, tag or commit; raises as `pretrained_folder` and `from_run`."""
        return cls.from_run(pretrained_folder(name, revision), device)

    @usual_device()
    def sample(
        self,
        n: int | None = None,
        *,
        labels: Labels | None = None,
        seed: int = 0,
        guidance: Number | None = None,
        temperature: Number | None = None,
        top_k: Sequence[int] | int | None = None,
        top_p: Number | None = None,
        batch_size: int | None = None,
        precision: Precision | None = None,
        method: Method | None = None,
        verify: bool = False,
    ) -> np.ndarray:
        """Draw images 0 to n-1 of a seed: the same as `vqprior sample --seed SEED --label ""` writes.

        Args:
            n: number of images; without it as many as there are labels.
            labels: one for each image, or one for all; without it the classes in turn.
            guidance, temperature, top_k, top_p: as for `vqprior sample`, in this order; one number for all
                images, or one for each of them; `defaults` where not given.
            batch_size, precision, method: as for `vqprior sample`; `defaults` where not given.
            verify: prove that a full forward over the finished maps chooses the same codes.

        Returns:
            uint8 [n, H, W, C].

        Raises:
            UserError: codes that are not the prior's (`verify`), an unknown class, a number out of its range,
                or labels or numbers that do not match `n`.
        """
        drawing = dict(guidance=guidance, temperature=temperature, top_k=top_k, top_p=top_p)
        passes = dict(batch_size=batch_size, precision=precision, method=method)
        codes, sampling = self._drawn(n, labels, seed, drawing, passes, verify)
        return self.networks.decode(codes, sampling).permute(0, 2, 3, 1).numpy()

    @usual_device()
    def sample_codes(
        self,
        n: int | None = None,
        *,
        labels: Labels | None = None,
        seed: int = 0,
        guidance: Number | None = None,
        temperature: Number | None = None,
        top_k: Sequence[int] | int | None = None,
        top_p: Number | None = None,
        batch_size: int | None = None,
        precision: Precision | None = None,
        method: Method | None = None,
        verify: bool = False,
    ) -> Arrays:
        """The codes int64 [N, h, w] of what `sample` draws; of several levels a tuple of them. Arguments and
        errors are those of `sample`."""
        drawing = dict(guidance=guidance, temperature=temperature, top_k=top_k, top_p=top_p)
        passes = dict(batch_size=batch_size, precision=precision, method=method)
        codes, _ = self._drawn(n, labels, seed, drawing, passes, verify)
        return as_arrays(tuple(of_level.cpu() for of_level in codes))

    def _drawn(
        self,
        n: int | None,
        labels: Labels | None,
        seed: int,
        drawing: dict[str, Any],
        passes: dict[str, Any],
        verify: bool,
    ) -> tuple[Codes, Sampling]:
        """The codes of images 0 to n-1 of a seed, and how they were drawn."""
        if n is None:
            each = None if labels is None else label_list(labels)
            if each is None:
                raise UserError("say how many images: n, or one label for each image")
            n = len(each)
        if not (is_whole(n) and n > 0):
            raise UserError(f"n is {n!r}; it is a whole number, at least 1")
        settings = self._settings(seed=seed, **passes)
        numbers = torch.arange(n)
        in_turn = self.networks.labels_for(numbers)
        chosen = in_turn if labels is None else label_numbers(labels, n, self.label_names)
        choice = self._choice(n, **drawing)
        sampling = Sampling(seed, choice, settings.precision, settings.batch_size, settings.method)
        codes = self.networks.codes(numbers, chosen, sampling)
        if verify:
            self.networks.verify(codes, numbers, chosen, sampling).refuse(settings.precision)
        return codes, sampling

    def encode(
        self,
        images: np.ndarray | Tensor,
        *,
        batch_size: int | None = None,
        precision: Precision | None = None,
    ) -> Arrays:
        """The codes int64 [N, h, w] of images uint8 [N, H, W, C]: as `Tokenizer.encode`."""
        return self._of_pictures().encode(images, batch_size=batch_size, precision=precision)

    def decode(
        self,
        codes: Arrays | Tensor | Sequence[Tensor],
        *,
        batch_size: int | None = None,
        precision: Precision | None = None,
    ) -> np.ndarray:
        """The images uint8 [N, H, W, C] of codes, integers [N, h, w] in [0, K): as `Tokenizer.decode`."""
        return self._of_pictures().decode(codes, batch_size=batch_size, precision=precision)

    def reconstruct(
        self,
        images: np.ndarray | Tensor,
        *,
        batch_size: int | None = None,
        precision: Precision | None = None,
    ) -> np.ndarray:
        """What decoding the codes of images uint8 [N, H, W, C] gives: as `Tokenizer.reconstruct`."""
        return self._of_pictures().reconstruct(images, batch_size=batch_size, precision=precision)

    @usual_device()
    def complete(
        self,
        image: np.ndarray,
        mask: np.ndarray,
        *,
        n: int = 6,
        draws: int | None = None,
        labels: Labels | None = None,
        seed: int = 0,
        guidance: Number | None = None,
        temperature: Number | None = None,
        top_k: Sequence[int] | int | None = None,
        top_p: Number | None = None,
        batch_size: int = 16,
        precision: Precision | None = None,
        method: Method | None = None,
        verify: bool = False,
    ) -> Completions:
        """Fill in the hidden pixels of a picture, several times.

        A code is kept where the mask covers nothing of its square; each other one is drawn given all codes
        before it in raster order. What is behind the mask has no influence. Draw i uses the noise of image i.

        Args:
            image: uint8 [H, W, C] of the size of the run's pictures.
            mask: bool [H, W], true where a pixel is hidden.
            n: number of completions.
            draws: how many to draw, of which the n with the likeliest whole maps are kept; without it n.
            labels: one for each draw, or one for all; without it the prior is told none, and guidance has no
            effect.
            guidance, temperature, top_k, top_p: one number for all draws, or one for each; `defaults` where
            not given.
            batch_size, precision, method: draws at once, autocast, and how they are drawn (`defaults` where
                not given).
            verify: prove that a full forward over the finished maps chooses the same codes.

        Raises:
            UserError: codes that are not the prior's (`verify`), a picture or mask of another shape or type,
                an unknown class, none for a prior that was always told the class, or a number out of its
                range.
        """
        draws = n if draws is None else draws
        if not (is_whole(n) and is_whole(draws) and 1 <= n <= draws):
            raise UserError(
                f"n is {n!r} and draws is {draws!r}; they are whole numbers, n at least 1 and at most draws"
            )
        vqvae = self.networks.vqvae
        picture = as_images(as_tensor(image)[None], vqvae)[0]  # [C, H, W]
        hidden = as_mask(mask, vqvae)
        settings = self._settings(seed=seed, batch_size=batch_size, precision=precision, method=method)
        chosen = self.numbers_of(labels, draws)
        guidance = 1.0 if labels is None else guidance
        choice = self._choice(draws, guidance=guidance, temperature=temperature, top_k=top_k, top_p=top_p)

        # Draw the codes that the mask covers anything of, and keep the others
        of_picture = self._known(picture, hidden, settings.precision)
        is_known = tuple(of_level[0] >= 0 for of_level in of_picture)  # each [h, w]
        known = tuple(of_level.expand(draws, -1, -1) for of_level in of_picture)
        passes = dict(batch_size=settings.batch_size, precision=settings.precision)
        sampling = Sampling(seed, choice, **passes, method=settings.method)
        numbers = torch.arange(draws)
        drawn = self.networks.codes(numbers, chosen, sampling, known)
        if verify:
            self.networks.verify(drawn, numbers, chosen, sampling, known).refuse(settings.precision)
        codes = tuple(of_level.cpu() for of_level in drawn)

        # The likeliest whole maps, decoded
        bits = -self.networks.log2_prob(codes, chosen, **passes)
        best = bits.argsort(stable=True)[:n]
        chosen_codes = picked(codes, best)
        decode = lambda at: self.tokenizer.images_of(picked(chosen_codes, at), precision=settings.precision)
        decoded = in_chunks(decode, n, settings.batch_size)
        images = torch.where(hidden, decoded, picture).permute(0, 2, 3, 1)
        return Completions(
            images.numpy(),
            as_arrays(chosen_codes),
            bits[best].numpy(),
            best.numpy(),
            as_arrays(is_known),
        )

    @usual_device()
    def known_codes(
        self, image: np.ndarray | Tensor, mask: np.ndarray | Tensor, *, precision: Precision | None = None
    ) -> Arrays:
        """The codes that `complete` keeps of a picture: int64 [1, h, w], of several levels a tuple of them,
        and -1 where one is to be drawn.

        Args:
            image, mask, precision: as for `complete`; raises as that does.
        """
        picture = as_images(as_tensor(image)[None], self.networks.vqvae)[0]
        settings = self._settings(precision=precision)
        return as_arrays(self._known(picture, as_mask(mask, self.networks.vqvae), settings.precision))

    def _known(self, picture: Tensor, hidden: Tensor, precision: Precision) -> Codes:
        """The codes [1, h, w] of a picture [C, H, W] with hidden pixels [H, W]; -1 where any is in a code's
        own square."""
        seen = self.tokenizer.codes_of(fill(picture, hidden)[None], precision=precision)
        pairs = zip(seen, self.networks.vqvae.levels, strict=True)
        return tuple(of_level.masked_fill(hidden_codes(hidden, level), -1) for of_level, level in pairs)

    @usual_device()
    def log2_prob(
        self,
        given: Arrays,
        labels: Labels | None = None,
        *,
        batch_size: int | None = None,
        precision: Precision | None = None,
    ) -> np.ndarray:
        """log2 p(codes | label) of each image: at most 0; minus it is what the codes cost, in bits an image.

        Of several levels it is the sum over them, each given those above. It is the likelihood of the codes,
        not of the pixels: two images with the same codes have the same.

        Args:
            given: images uint8 [N, H, W, C], which are encoded first, or codes int64 [N, h, w], of several
                levels as many.
            labels: one for each, or one for all; without it the prior is told none.
            batch_size, precision: `defaults` where not given.

        Returns:
            float64 [N].

        Raises:
            UserError: arrays of another shape, type or range, an unknown class, or none for a prior that was
                always told it.
        """
        settings = self._settings(batch_size=batch_size, precision=precision)
        codes = self._codes(given, settings)
        labels = self.numbers_of(labels, len(codes[0]))
        passes = dict(batch_size=settings.batch_size, precision=settings.precision)
        return self.networks.log2_prob(codes, labels, **passes).numpy()

    @usual_device()
    def posterior(
        self,
        given: Arrays,
        *,
        batch_size: int | None = None,
        precision: Precision | None = None,
    ) -> np.ndarray:
        """p(label | codes) of each image by Bayes' rule, all classes being equally likely before.

        Args:
            given, batch_size, precision: as for `log2_prob`.

        Returns:
            float64 [N, classes], rows that sum to 1.

        Raises:
            UserError: as `log2_prob`, or an unconditional prior.
        """
        if not self.label_names:
            raise UserError("the prior is unconditional: its data had no classes to tell apart")
        settings = self._settings(batch_size=batch_size, precision=precision)
        codes = self._codes(given, settings)
        passes = dict(batch_size=settings.batch_size, precision=settings.precision)
        labels = (torch.full((len(codes[0]),), label) for label in range(len(self.label_names)))
        bits = [self.networks.log2_prob(codes, label, **passes) for label in labels]
        return (torch.stack(bits, dim=1) * np.log(2)).softmax(dim=1).numpy()

    def classify(
        self,
        given: Arrays,
        *,
        batch_size: int | None = None,
        precision: Precision | None = None,
    ) -> np.ndarray:
        """arg max over labels of p(codes | label), int64 [N]: a classifier for free; see `posterior`."""
        return self.posterior(given, batch_size=batch_size, precision=precision).argmax(axis=1)

    @usual_device()
    def usual(
        self,
        label: Label | None = None,
        *,
        pictures: Arrays | None = None,
        batch_size: int | None = None,
        precision: Precision | None = None,
    ) -> Usual:
        """What the codes of pictures that are usual cost, for `score` to compare others with.

        Args:
            label: the class that all are held to be of; without it the prior is told none.
            pictures: images uint8 [V, H, W, C] or codes int64 [V, h, w]; without it the validation pictures
                of the run, of the class or of all, at most 5,000 of them.
            batch_size, precision: `defaults` where not given.

        Raises:
            UserError: as `log2_prob`, or no pictures are given and the run's code maps are not there.
        """
        settings = self._settings(batch_size=batch_size, precision=precision)
        number = None if label is None else label_number(label, self.label_names)
        if pictures is None and self.run is None:
            raise UserError("this generator is of no run, whose validation pictures are usual: give pictures")
        codes = held_out(self.run, number) if pictures is None else self._codes(pictures, settings)
        cost = lambda at: bits_by_place(self.networks, picked(codes, at), number, settings.precision)[0]
        return Usual(in_chunks(cost, len(codes[0]), settings.batch_size).numpy(), number)

    @usual_device()
    def score(
        self,
        images: np.ndarray | Tensor,
        usual: Usual | None = None,
        *,
        quantile: float = 0.9,
        restorations: int = 4,
        seed: int = 0,
        batch_size: int | None = None,
        precision: Precision | None = None,
    ) -> Scores:
        """How unusual images are under the prior, where, and what they would be like if they were usual; see
        `score.py`.

        Args:
            images: uint8 [N, H, W, C].
            usual: what `usual` gives, which is called here without it: keep it where you call this again.
            quantile: codes that cost more than this share of the usual ones at their place are drawn anew.
            restorations: how often they are.
            seed: of their noise.
            batch_size, precision: `defaults` where not given.

        Raises:
            UserError: as `encode` and `usual`, a number out of its range, or what is usual in another run.
        """
        self._of_pictures()
        quantile, restorations = unwrapped(quantile), unwrapped(restorations)
        if not (
            isinstance(quantile, Real) and 0 < quantile < 1 and is_whole(restorations) and restorations > 0
        ):
            found = f"quantile is {quantile!r} and restorations is {restorations!r}"
            raise UserError(f"{found}; they take a share between 0 and 1, and a whole number, at least 1")
        if not (usual is None or isinstance(usual, Usual)):
            raise UserError(
                f"usual is of type {type(usual).__name__}; it takes what `usual` of this generator gives"
            )
        settings = self._settings(seed=seed, batch_size=batch_size, precision=precision)
        passes = dict(batch_size=settings.batch_size, precision=settings.precision)
        given = as_images(images, self.networks.vqvae)
        usual = self.usual(**passes) if usual is None else usual
        usual.refuse_misfit(self.tokenizer.levels, len(self.label_names))
        sampling, limits = Sampling(seed, **passes), usual.limits(quantile)
        parts = []
        for chunk in chunks(len(given), settings.batch_size):
            scored = score(
                self.networks,
                given[chunk.padded],
                usual.label,
                limits,
                restorations=restorations,
                sampling=sampling,
                own=len(chunk.items),
            )
            parts.append(scored)
        joined = Scored(*map(torch.cat, zip(*parts, strict=True)))
        return joined.of_users(usual, self.tokenizer.levels)

    def _of_pictures(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            UserError: there is none, since the codes were imported.
        """
        if isinstance(self.tokenizer, Imported):
            refuse_imported()
        return self.tokenizer

    def _settings(self, **given: Any) -> Sample:
        """The defaults with what is given (not None) in its place, and a number of images drawn at once.

        A seed that is None is refused: others take it for a fresh one at each call, and here is no such.
        """
        said = {name: value for name, value in given.items() if value is not None or name == "seed"}
        try:
            settings = replace(self.defaults, **said)
        except (TypeError, ValueError) as error:
            raise UserError(str(error)) from error
        return replace(settings, batch_size=self.networks.batch_size_of(settings))

    def _choice(self, count: int, **given: Number | None) -> Choice:
        """How the codes of `count` images are chosen, from one number or one for each; the defaults for
        None."""
        default = lambda name, value: getattr(self.defaults, name) if value is None else value
        choice = Choice(
            **{name: per_image(name, default(name, value), count) for name, value in given.items()}
        )
        self.networks.check_guidance(choice.guidance)
        return choice

    def numbers_of(self, labels: Labels | None, count: int) -> Tensor | None:
        """The numbers [N] of classes; where none is given the one that says so, and None for an unconditional
        prior.

        Raises:
            UserError: an unknown class, or none for a prior that was always told it.
        """
        if labels is not None:
            return label_numbers(labels, count, self.label_names)
        if not self.label_names:
            return None
        if self.networks.null_label is None:
            raise UserError(
                "the prior was told the class of every picture it learnt from (stage2.label_dropout 0), so "
                "it must be told "
                f"here too: give a label, one of {listed(self.label_names)}"
            )
        return torch.full((count,), self.networks.null_label)

    def _codes(self, given: Arrays, settings: Sample) -> Codes:
        """The codes of images, which are encoded in chunks, or the codes that are given, checked."""
        if has_levels(given, self.tokenizer.levels):
            return as_codes(given, self.tokenizer.levels)
        array = as_tensor(given)
        if array.ndim not in (3, 4):
            expected = "images uint8 [N, H, W, C] or codes, integers [N, h, w]"
            raise UserError(f"got {described(array)}; it takes {expected}")
        if array.ndim == 3:
            return as_codes(array, self.tokenizer.levels)
        images = as_images(array, self.networks.vqvae)
        encode = lambda at: self.tokenizer.codes_of(images[at], precision=settings.precision)
        return in_chunks(encode, len(images), settings.batch_size)
