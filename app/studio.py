"""What the page can do with a run, apart from the page: nothing here knows Gradio, and nothing is remembered.

Whatever a visitor has made is in what a call gives back; two visitors share the networks and nothing else.

Legend: N pictures, C channels, H x W their size, h x w a code map, K codes.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data, is_whole
from vqprior.runtime.codes import Codes, Level, codes_onto
from vqprior.runtime.run_dir import RunDir
from vqprior.runtime.transfer import onto
from vqprior.sampling.arguments import as_codes, as_levels
from vqprior.sampling.choice import Choice, Sampling
from vqprior.sampling.decoding import Imported, colours
from vqprior.sampling.generator import Generator
from vqprior.stage2_prior.measure import log2_prob_of_places

from .made import Made, Place, and_then

MOST = 64  # pictures at once
BEYOND = 4  # codes on each side of a place, that a candidate is shown with


class Candidate(NamedTuple):
    """A code that could stand at a place."""

    code: int
    p: float  # of it, given all codes before it
    image: Tensor  # uint8 [C, H', W'], the surroundings of the place with it


class Examined(NamedTuple):
    """A picture as codes."""

    made: Made  # its reconstruction, N = 1
    psnr: float  # dB; infinite where nothing was lost
    bits: tuple[Tensor, ...]  # of each level, fp64 [h, w]


class Studio:
    """A run that is played with.

    Args:
        generator: its networks.
        data: its settings of pictures, by which uploads are cut and resized.
        name: of the run.
    """

    def __init__(self, generator: Generator, data: Data, name: str):
        self.generator, self.data, self.name = generator, data, name
        self.networks, self.tokenizer = generator.networks, generator.tokenizer
        self.label_names, self.defaults = generator.label_names, generator.defaults

    @classmethod
    def from_run(cls, run: RunDir) -> Self:
        """Of a run directory; raises as `Generator.from_run`."""
        return cls(Generator.from_run(run.path), run.config().data, Path(run.path).resolve().name)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The maps of codes of a picture, coarsest first."""
        return self.tokenizer.levels

    @property
    def takes_pictures(self) -> bool:
        """Whether pictures have codes: not where the codes were imported."""
        return not isinstance(self.tokenizer, Imported)

    @property
    def takes_guidance(self) -> bool:
        """Whether the prior was trained for it; it then can be told no class, too."""
        return self.networks.null_label is not None

    def sampling(
        self,
        seed: float,
        temperature: float,
        top_p: float,
        guidance: float,
        method: str,
        *,
        told: bool = True,
    ) -> Sampling:
        """How codes are drawn; top-k and the precision are the run's, and without a class that is `told`
        there is no guidance.

        Raises:
            UserError: a number out of its range.
        """
        guidance = guidance if self.takes_guidance and told else 1.0
        choice = Choice(temperature, self.defaults.top_k, top_p, guidance)
        return Sampling(_whole(seed, "the seed"), choice, self.defaults.precision, method=method)

    def labels(self, label: int | None, count: int) -> Tensor | None:
        """The class of each of `count` pictures: one for all, or for None all classes in turn.

        Raises:
            UserError: so many are not drawn at once.
        """
        _refuse_many(count)
        numbers = torch.arange(count)
        return self.networks.labels_for(numbers) if label is None else torch.full_like(numbers, label)

    def told(self, label: int | None, count: int) -> Tensor | None:
        """The class that each of `count` pictures is held to be of, or for None that none is told.

        Raises:
            UserError: so many are not drawn at once, or the prior must be told one.
        """
        _refuse_many(count)
        return self.generator.numbers_of(label, count)

    def draw(self, labels: Tensor | None, count: int, sampling: Sampling) -> Iterator[Codes]:
        """The codes of pictures 0 to count - 1 of a seed, as they are drawn; see `Networks.growing`."""
        yield from self.networks.growing(torch.arange(count), labels, sampling)

    def redraw(self, made: Made, level: int, place: Place, sampling: Sampling) -> Iterator[Codes]:
        """The codes of one picture, all that come after a place of a level drawn anew, as they are drawn."""
        known = []
        for index, of_level in enumerate(made.codes):
            kept = of_level.clone()
            if index >= level:
                after = (place[0] * of_level.shape[2] + place[1] + 1) if index == level else 0
                kept.view(1, -1)[:, after:] = -1
            known.append(kept)
        yield from self.networks.growing(
            torch.zeros(1, dtype=torch.int64), made.labels, sampling, tuple(known)
        )

    def complete(
        self, image: Tensor, hidden: Tensor, labels: Tensor | None, count: int, sampling: Sampling
    ) -> Iterator[Codes]:
        """The codes of `count` completions of a picture uint8 [C, H, W], hidden where bool [H, W] says, as
        they are drawn."""
        known = as_levels(self.generator.known_codes(image.permute(1, 2, 0), hidden))
        expanded = tuple(torch.from_numpy(of_level).expand(count, -1, -1) for of_level in known)
        yield from self.networks.growing(torch.arange(count), labels, sampling, expanded)

    def made(self, codes: Codes, labels: Tensor | None, settings: dict[str, Any]) -> Made:
        """The pictures of finished codes."""
        codes = tuple(of_level.cpu().clone() for of_level in codes)
        images = self.tokenizer.images_of(codes, precision=self.defaults.precision)
        bits = -self.networks.log2_prob(
            codes, labels, batch_size=len(images), precision=self.defaults.precision
        )
        return Made(codes, images, labels, bits, {"run": self.name, **settings})

    def with_code(self, made: Made, level: int, place: Place, code: int) -> Made:
        """One picture with another code at a place.

        Raises:
            UserError: there is no such code.
        """
        codes = [of_level.clone() for of_level in made.codes]
        codes[level][0, *place] = code
        as_codes(tuple(codes), self.levels)
        change = {"level": level, "place": list(place), "code": code}
        return self.made(tuple(codes), made.labels, and_then(made.settings, change))

    @torch.no_grad()
    def candidates(self, made: Made, level: int, place: Place, count: int = 10) -> list[Candidate]:
        """The likeliest codes at a place of one picture given all codes before it, and the one that is
        there."""
        device = self.networks.device
        here = codes_onto(made.codes[: level + 1], device)
        labels = None if made.labels is None else onto(made.labels, device)
        logits = self.networks.priors[level](here[level], labels, here[:level])[0, :, *place]
        p = logits.float().softmax(0).cpu()
        order, own = p.argsort(descending=True, stable=True).tolist(), made.codes[level][0, *place].item()
        codes = sorted({*order[:count], own}, key=order.index)
        tried = [of_level.expand(len(codes), -1, -1).clone() for of_level in made.codes]
        tried[level][:, *place] = torch.tensor(codes)
        images = self.tokenizer.images_of(tuple(tried), precision=self.defaults.precision)
        around = images[:, :, *self.square(level, place, images.shape[2:], beyond=BEYOND)]
        return [Candidate(code, p[code].item(), image) for code, image in zip(codes, around, strict=True)]

    def square(
        self, level: int, place: Place, size: tuple[int, int], *, beyond: int = 0
    ) -> tuple[slice, slice]:
        """Rows and columns of the pixels that a code stands for in a picture of this size, and of so many
        codes on each side of it; at an edge as many, further inside."""
        of_level = self.levels[level]
        n, span = of_level.codes_per_position, 2 * beyond + 1
        maps = (place[0], of_level.height, size[0]), (place[1] // n, of_level.width // n, size[1])
        sides = []
        for at, codes, pixels in maps:
            first = max(0, min(at - beyond, codes - span))
            sides.append(slice(first * pixels // codes, min(codes, first + span) * pixels // codes))
        return tuple(sides)

    def nothing_yet(self, count: int) -> Tensor:
        """Pictures of which no code is drawn; see `so_far`."""
        return self.so_far(tuple(torch.full((count, *level.size), -1) for level in self.levels))

    def so_far(self, codes: Codes) -> Tensor:
        """Codes that are being drawn, as pictures with an opacity, uint8 [N, 4, H, W].

        Decoded where the codes of all levels are drawn; before that the colours of a coarser level's codes,
        and nothing where none is drawn.
        """
        codes = tuple(of_level.cpu() for of_level in codes)
        begun = len(codes) == len(self.levels)
        if begun:
            filled = tuple(map(_filled, codes))
            decoded = self.tokenizer.images_of(filled, precision=self.defaults.precision).expand(
                -1, 3, -1, -1
            )
            size = decoded.shape[2:]
        else:
            size = self.tokenizer.image_size
        shown = torch.zeros(len(codes[0]), 4, *size, dtype=torch.uint8)
        for index, (level, of_level) in enumerate(zip(self.levels, codes, strict=False)):
            squares = of_level[:, :, :: level.codes_per_position]
            rows, columns = (
                torch.arange(side) * of // side for side, of in zip(size, squares.shape[1:], strict=True)
            )
            squares = squares[:, rows][:, :, columns]  # [N, H, W]
            finest = index == len(self.levels) - 1
            colour = decoded if finest else colours(level.K)[squares.clamp(min=0)].permute(0, 3, 1, 2)
            opaque = torch.cat([colour, torch.full_like(colour[:, :1], 255)], dim=1)
            shown = torch.where((squares >= 0)[:, None], opaque, shown)
        return shown

    def examine(self, image: Tensor, label: int | None) -> Examined:
        """The codes of a picture uint8 [C, H, W], what they give back, and what they cost under the prior,
        told the class or, for None, none; raises as `told`."""
        codes = self.tokenizer.codes_of(image[None], precision=self.defaults.precision)
        labels = self.told(label, 1)
        made = self.made(codes, labels, {"encoded": True, "class": self.class_name(label)})
        error = (made.images[0].double() - image.double()).square().mean().item()
        return Examined(
            made, 10 * math.log10(255**2 / error) if error else math.inf, self.bits_by_place(made)
        )

    def bits_by_place(self, made: Made) -> tuple[Tensor, ...]:
        """What each code of one picture costs, of each level [h, w] fp64."""
        here = codes_onto(made.codes, self.networks.device)
        labels = None if made.labels is None else onto(made.labels, self.networks.device)
        return tuple(
            -log2_prob_of_places(prior, here[: level + 1], labels, precision=self.defaults.precision)[0]
            for level, prior in enumerate(self.networks.priors)
        )

    def class_of(self, made: Made) -> str | None:
        """The name of the class that one picture was drawn or measured with; None for none."""
        return None if made.labels is None else self.class_name(made.labels.item())

    def class_name(self, label: int | None) -> str | None:
        """The name of a class; None for none, and for the label that says none."""
        known = label is not None and label < len(self.label_names)
        return self.label_names[label] if known else None


def paced(steps: Iterator[Codes], seconds: float) -> Iterator[Codes]:
    """Some of the steps, and always the last one: no two in a shorter time, and whoever takes a step and
    needs time for it waits four times as long for the next, so that showing costs a fifth at most."""
    due, waiting = -math.inf, None
    for waiting in steps:
        begun = time.monotonic()
        if begun >= due:
            yield waiting
            ended, waiting = time.monotonic(), None
            due = ended + max(seconds, 4 * (ended - begun))
    if waiting is not None:
        yield waiting


def _refuse_many(count: int) -> None:
    if not is_whole(count) or not 1 <= count <= MOST:
        raise UserError(f"{count} pictures were asked for; it takes 1 to {MOST} at once, a whole number")


def _whole(number: float, name: str) -> int:
    """A number that a form gives, as an integer.

    Raises:
        UserError: it is none, or not whole.
    """
    if not isinstance(number, int | float) or not 0 <= number < 2**63 or number != int(number):
        raise UserError(f"{name} is {number}; it must be a whole number, at least 0")
    return int(number)


def _filled(codes: Tensor) -> Tensor:
    """Codes [N, h, w] with the last drawn row in place of those below, which are -1; 0 where there is
    none."""
    rows = codes.unbind(1)
    filled = [rows[0]]
    for row in rows[1:]:
        filled.append(torch.where(row < 0, filled[-1], row))
    return torch.stack(filled, 1).clamp(min=0)
