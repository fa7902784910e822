"""What a part of an evaluation is, and what its figures can be a function of."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqprior.configs.errors import UserError
from vqprior.runtime.files import sha256
from vqprior.runtime.processes import on_main

from .classifier import RECIPE, SEED
from .subject import Subject
from .tables import Figures, Row, Table

FORMAT = 4  # of the figures of a part: others are measured anew; a figure that is only added needs no new one
Settings = dict[str, Any]
Dependency = Callable[[Subject], Settings]
"""What figures can be a function of, by name, as a run has it."""


def origin(subject: Subject, *, with_priors: bool = True) -> Settings:
    """What all figures depend on: where it differs they are of other networks, pictures or versions."""
    return {"format": FORMAT} | subject.origin(with_priors=with_priors)


def row_size(subject: Subject) -> Settings:
    """The number of images that are looked at."""
    return {"n": subject.n}


def drawing(subject: Subject) -> Settings:
    """How samples are drawn."""
    return {"drawing": subject.drawing()}


def samples(subject: Subject) -> Settings:
    """How the row of samples is drawn, and for what classes.

    Raises:
        UserError: for those of the test images, which have none, or for one class besides.
    """
    if subject.config.classes == "test" and not subject.label_names:
        raise UserError("--classes is `test`, and these data have none; leave it out")
    if subject.config.classes == "test" and subject.config.sample.label:
        raise UserError(
            f"--classes is `test`, and sample.label {subject.config.sample.label!r} asks for one class; give "
            'one of the two (--sample.label "" takes the latter back)'
        )
    return drawing(subject) | subject.asking()


def features(subject: Subject) -> Settings:
    """The network that sees features in images, the classifiers of the data among them."""
    config, weights = subject.config, subject.config.features_weights
    expected = "expected the file of the weights"
    return {
        "classifier_steps": config.classifier_steps,
        "seed": SEED,
        "features": config.features,
        "recipe": RECIPE,
        "weights": on_main(content_of, "--features_weights", Path(weights), expected) if weights else None,
    }


def content_of(flag: str, path: Path, expected: str) -> str:
    """The digest of a file that a flag names.

    Raises:
        UserError: there is no such file.
    """
    if not path.is_file():
        raise UserError(f"{flag} {path} is not a file; {expected}")
    return sha256(path)


@dataclass(frozen=True)
class Part:
    """A part of an evaluation: what it measures, what that is a function of, and how it is shown."""

    name: str  # as `--only` takes it; RUN/evaluation/NAME.json holds its figures
    heading: str  # of its section on the page
    measure: Callable[[Subject], Figures]
    tables: Callable[[Figures], list[Table]]
    depends_on: tuple[Dependency, ...] = ()  # besides the networks, the data and the precision
    needs_labels: bool = False  # classes in the data
    needs_features: bool = False  # of a classifier, which takes classes, or of another network
    needs_pictures: bool = True  # and a VQ-VAE, which imported codes have not
    needs_priors: bool = True  # and code maps; else stage one alone will do
    needs_images: int = 1  # in each row: one alone has no covariance, and no neighbour
    of_all_classes: bool = False  # it compares samples with real images of all classes
    tiles: tuple[Row, ...] = ()  # the figures at the head of the page
    key: str = ""  # in metrics.json, where it is not the name

    @property
    def key_of_metrics(self) -> str:
        """What `metrics.json` calls it."""
        return self.key or self.name

    def too_few(self, subject: Subject) -> str:
        """How many images it needs, beside those that there are, in words."""
        least, (train, test) = self.needs_images, subject.sizes
        return f"{least} training and {least} test images, and these data have {train:,} and {test:,}"

    def is_possible(self, subject: Subject) -> bool:
        """Whether it can be measured on these data."""
        if self.needs_pictures and subject.data is None:
            return False
        has_labels = bool(subject.label_names) or not self.needs_labels
        has_features = subject.has_features or not self.needs_features
        return has_labels and has_features and subject.n >= self.needs_images

    def settings(self, subject: Subject) -> Settings:
        """All that its figures are a function of.

        Raises:
            UserError: it needs pictures, classes or features and there are none, or more images than there
                are, or one class is to be compared with all.
        """
        if self.needs_pictures and subject.data is None:
            raise UserError(f"the part `{self.name}` needs pictures, and the codes of this run were imported")
        if self.needs_labels and not subject.label_names:
            raise UserError(f"the part `{self.name}` needs classes, and these data have none")
        if self.needs_features and not subject.has_features:
            raise UserError(
                f"the part `{self.name}` needs features, those of a classifier need classes, and these data "
                "have none: pip install 'vqprior[eval]' and take --features inception-v3-compat"
            )
        if subject.n < self.needs_images:
            raise UserError(f"the part `{self.name}` needs {self.too_few(subject)}")
        if self.of_all_classes and subject.config.sample.label:
            raise UserError(
                f"the part `{self.name}` compares samples of all classes with real images, and sample.label "
                f'is {subject.config.sample.label!r}. Take it back with --sample.label "", or measure '
                "samples of one class with --archives"
            )
        settings = origin(subject, with_priors=self.needs_priors)
        for depends_on in self.depends_on:
            settings |= depends_on(subject)
        return settings
