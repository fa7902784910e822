"""How unusual pictures are under a prior, where, and what they would be like if they were usual.

After Marimont and Tarroni 2021, "Anomaly detection through latent space restoration using vector quantized
variational autoencoders" (arXiv 2012.06765): the bits of a picture's codes say whether it is like those that
the prior learnt, the bits by place say where not; the codes that cost more than is usual at their place are
drawn anew, given the others before them, and decoded. What differs from the picture is what was unusual.
There the limit is one number for all places; here each place has its own, a quantile of held-out pictures.

Where no class is told, the codes cost what they cost under a mixture of all classes, equally likely
(docs/score.md has figures beside those of a prior that is told none):

    p(x_1 ... x_i) = sum_y p(y) p(x_1 ... x_i | y)
    bits of place i = log2 p(x_1 ... x_i-1) - log2 p(x_1 ... x_i)

so that they add up to those of the picture. Codes are then drawn anew given its likeliest class.

Legend: N images, C channels, H x W their size, P codes of all levels in a row, R restorations, V held-out
pictures.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Precision, is_whole
from vqprior.runtime.code_maps import CodeMaps, to_make
from vqprior.runtime.codes import Codes, Level, apart, codes_onto, in_a_row, picked
from vqprior.runtime.devices import convolutions
from vqprior.runtime.lineage import codes_origin
from vqprior.runtime.randomness import some_of
from vqprior.runtime.run_dir import RunDir
from vqprior.runtime.transfer import onto
from vqprior.stage2_prior.measure import log2_prob_of_places

from .arguments import Arrays, as_arrays
from .choice import Sampling
from .networks import Networks

ROUNDING = 1e-3  # bits: the first code has K prices, and its limit may be one of them
HELD_OUT = 5000  # validation pictures at most that say what is usual


class Usual(NamedTuple):
    """What the codes of pictures that are usual cost: the measure of others."""

    bits: np.ndarray  # float32 [V, P]
    label: int | None  # the class that the prior was told, None for none

    def refuse_misfit(self, levels: Sequence[Level], classes: int) -> None:
        """Refuse, with a UserError, what is usual in a run of other maps of codes, or without its class."""
        bits = self.bits
        if not (isinstance(bits, np.ndarray) and bits.dtype.kind == "f" and bits.ndim == 2 and bits.size):
            raise UserError("the bits of what is given as usual are no array [V, P]; call `usual` for them")
        if not (self.label is None or is_whole(self.label)):
            raise UserError(f"what is given as usual is of class {self.label!r}; it takes a number, or None")
        here, there = sum(level.places for level in levels), self.bits.shape[1]
        if there != here:
            found = f"of pictures of {there} codes, and those of this one have {here}"
        elif self.label is not None and self.label >= classes:
            found = f"of class number {self.label}, and this one has {classes} classes"
        else:
            return
        raise UserError(f"what is given as usual is of another run: {found}; call `usual` of this one")

    def limits(self, quantile: float) -> Tensor:
        """What at most this share of them cost at each place, up to rounding, [P]."""
        return torch.from_numpy(np.quantile(self.bits, quantile, axis=0).astype(np.float32)) + ROUNDING

    def quantile_of(self, bits: np.ndarray) -> np.ndarray:
        """The share of them that cost no more than so many bits a picture, up to rounding: [N] -> float64
        [N]."""
        totals = np.sort(self.bits.astype(np.float64).sum(1))
        return np.searchsorted(totals, bits + ROUNDING, side="right") / len(totals)


class Scores(NamedTuple):
    """How unusual pictures are; of several levels `places`, `redrawn` and `restored` are tuples of arrays."""

    bits: np.ndarray  # float64 [N], what the codes of each cost under the prior
    quantile: np.ndarray  # float64 [N], the share of held-out pictures that cost no more
    places: Arrays  # float32 [N, h, w], the bits of each code
    heat: np.ndarray  # float32 [N, H, W], the same by pixel: each code's bits spread over its square
    redrawn: Arrays  # bool [N, h, w], codes that cost more than is usual at their place
    restored: Arrays  # int64 [N, R, h, w], the codes with these drawn anew
    restorations: np.ndarray  # uint8 [N, R, H, W, C]
    differences: np.ndarray  # float32 [N, H, W], to the restorations, mean squared, values in [0, 1]
    difference: np.ndarray  # float64 [N], their mean
    reconstruction: np.ndarray  # float64 [N], mean squared error of the reconstruction, which draws nothing


class Scored(NamedTuple):
    """What is found of some pictures, as tensors; `Scores` are made of it."""

    bits: Tensor  # fp32 [N, P]
    redrawn: Tensor  # bool [N, P]
    restored: Tensor  # int64 [N, R, P]
    restorations: Tensor  # uint8 [N, R, C, H, W]
    differences: Tensor  # fp32 [N, H, W]
    reconstruction: Tensor  # fp32 [N]

    def of_users(self, usual: Usual, levels: Sequence[Level]) -> Scores:
        """The same, compared with what is usual."""
        bits = self.bits.double().sum(1).numpy()
        return Scores(
            bits,
            usual.quantile_of(bits),
            as_arrays(apart(self.bits, levels)),
            heat(self.bits, levels, self.differences.shape[1:]).numpy(),
            as_arrays(apart(self.redrawn, levels)),
            as_arrays(apart(self.restored, levels)),
            self.restorations.permute(0, 1, 3, 4, 2).numpy(),
            self.differences.numpy(),
            self.differences.double().mean((1, 2)).numpy(),
            self.reconstruction.double().numpy(),
        )


def held_out(run: RunDir, label: int | None) -> Codes:
    """The codes of a run's validation pictures, of one class or of all; at most HELD_OUT, by chance but
    always the same.

    Raises:
        UserError: they are not there, or not those that the prior learnt beside, or none is of the class.
    """
    if not run.codes.is_dir():
        raise UserError(
            f"{run.path} keeps no codes of the pictures that it learnt beside, as an export never does, and "
            f"they say what is usual; with those pictures: {to_make(run.codes)}"
        )
    maps = CodeMaps(run.codes, verify=False)
    if codes_origin(run)["vqvae"] != maps.header.vqvae:
        raise UserError(f"the prior of {run.path} was trained on other codes than {run.codes} holds")
    split = maps.split("validation")
    members = torch.arange(len(split)) if label is None else (split.labels == label).nonzero()[:, 0]
    if not len(members):
        name = maps.header.label_names[label]
        raise UserError(f"no validation picture is of class {name!r}: there is nothing to compare with")
    return split.codes(members[some_of(len(members), HELD_OUT)])


def bits_by_place(
    networks: Networks,
    codes: Codes,
    label: int | None,
    precision: Precision,
) -> tuple[Tensor, Tensor | None]:
    """What each code of B images costs given those before it, fp32 [B, P], and the label [B] to draw others
    with, None for an unconditional prior; in one pass a class.

    Args:
        label: the class that they are held to be of; None for none.
    """
    on_device = codes_onto(codes, networks.device)
    mixed = best = likeliest = None
    every = _told(networks, label)
    for told in every:
        labels = None if told is None else torch.full((len(codes[0]),), told)
        up_to = _log2_by_place(networks, on_device, labels, precision).cumsum(1)  # log2 p(x_1 ... x_i | y)
        if mixed is None:
            mixed, best, likeliest = up_to, up_to[:, -1], labels
        else:
            mixed, better = torch.logaddexp2(mixed, up_to), up_to[:, -1] > best
            best, likeliest = torch.where(better, up_to[:, -1], best), torch.where(better, labels, likeliest)
    mixed = mixed - math.log2(len(every))
    return -mixed.diff(dim=1, prepend=torch.zeros(len(mixed), 1)).float(), likeliest


def _told(networks: Networks, label: int | None) -> Sequence[int | None]:
    """The classes whose mixture the prior is asked for, or the one that it is told."""
    if label is not None or not networks.label_names:
        return [label]
    return range(len(networks.label_names))


def _log2_by_place(networks: Networks, codes: Codes, labels: Tensor | None, precision: Precision) -> Tensor:
    """log2 p of each code given those before it and labels [B], fp64 [B, P] on the CPU."""
    given = None if labels is None else onto(labels, networks.device)
    with convolutions(networks.device, precision):
        of_levels = [
            log2_prob_of_places(prior, codes[: level + 1], given, precision=precision)
            for level, prior in enumerate(networks.priors)
        ]
    return in_a_row(tuple(of_levels))


def score(
    networks: Networks,
    images: Tensor,
    label: int | None,
    limits: Tensor,
    *,
    restorations: int,
    sampling: Sampling,
    own: int | None = None,
) -> Scored:
    """Score B images uint8 [B, C, H, W], in one pass but for the restorations; or the first `own` of them,
    where the others are padding.

    What comes of an image is a function of it alone: restoration r has the noise of image number r.

    Args:
        limits: in bits, [P]: codes that cost more are drawn anew.
        sampling: how.
    """
    tokenizer, levels, R = networks.tokenizer, networks.tokenizer.levels, restorations
    codes = tokenizer.codes_of(images, precision=tokenizer.precision)
    bits, labels = bits_by_place(networks, codes, label, sampling.precision)
    images, bits, labels = (None if each is None else each[:own] for each in (images, bits, labels))
    reconstructed = tokenizer.images_of(codes, precision=tokenizer.precision)[:own]
    codes, redrawn = picked(codes, slice(own)), bits > limits

    known = torch.where(redrawn, -1, in_a_row(codes)).repeat_interleave(R, 0)
    labels = None if labels is None else labels.repeat_interleave(R)
    numbers = torch.arange(R).repeat(len(images))
    drawn = networks.codes(numbers, labels, sampling, apart(known, levels))
    restored = networks.decode(drawn, sampling).unflatten(0, (-1, R))
    return Scored(
        bits,
        redrawn,
        in_a_row(drawn).cpu().unflatten(0, (-1, R)),
        restored,
        _squared(restored, images[:, None]).mean((1, 2)),
        _squared(reconstructed, images).mean((1, 2, 3)),
    )


def _squared(images: Tensor, others: Tensor) -> Tensor:
    """Squared differences of images uint8, fp32 of [0, 1]."""
    return ((images.float() - others.float()) / 255).square()


def heat(bits: Tensor, levels: Sequence[Level], size: tuple[int, int]) -> Tensor:
    """Bits by place, [N, P], as bits by pixel, summed over the levels: [N, H, W].

    Each code's bits are spread evenly over its square of pixels, so that the map has as many as the codes.
    """
    of_levels = []
    for of_level, level in zip(apart(bits, levels), levels, strict=True):
        squares = of_level.unflatten(2, (-1, level.codes_per_position)).sum(3)
        share = squares[0].numel() / math.prod(size)
        of_levels.append(F.interpolate(squares[:, None], size, mode="nearest-exact")[:, 0] * share)
    return sum(of_levels)
