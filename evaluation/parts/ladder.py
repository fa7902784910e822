"""The ladder: sets of images, from real ones down to uniform codes, each against real test images.

A metric is a function of two sets of features and a line of METRICS, which `--archives` measures too.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from torch import Tensor

from vqprior.runtime.processes import is_main, on_main
from vqprior.runtime.progress import bar

from .. import distances
from ..classifier import SEED
from ..distances import Gaussian
from ..features import CLASSIFIER, features_of
from ..part import Part, features, row_size, samples
from ..subject import ROWS, Subject
from ..tables import Column, Figures, Row, Table, column_table, filled

UNEVEN = 2  # times as many test images of the commonest class as of the rarest are worth a word
NEIGHBOURS = 5  # k of precision, recall, density and coverage
NOTE = "KID is the mean of subsets of up to 1,000 images, ± their standard deviation (none of one alone)."


@dataclass
class Features:
    """What a network sees in a set of images."""

    rows: Tensor  # [N, F]

    @cached_property
    def gaussian(self) -> Gaussian:
        """The Gaussian of the rows, which the test images need for each set anew."""
        return Gaussian.of(self.rows)


def frechet(real: Features, fake: Features) -> Figures:
    """Frechet distance of the Gaussians."""
    return {"frechet": distances.frechet(real.gaussian, fake.gaussian)}


def kid(real: Features, fake: Features) -> Figures:
    """Kernel inception distance, and its deviation over subsets."""
    mean, deviation = distances.kid(real.rows, fake.rows, seed=SEED)
    return {"kid": mean, "kid_std": deviation}


def neighbourhoods(real: Features, fake: Features) -> Figures:
    """Precision, recall, density and coverage, with fewer neighbours where the sets are small."""
    k = min(NEIGHBOURS, len(real.rows) - 1, len(fake.rows) - 1)
    return distances.prdc(real.rows, fake.rows, k=k)


def kid_text(figures: Figures) -> str:
    """KID; of several subsets with their deviation, in two digits of which both are rounded alike."""
    mean, deviation = figures.get("kid"), figures.get("kid_std")
    if mean is None or not deviation or deviation < 1e-9:
        return filled("{kid:#.3g}", figures)
    decimals = max(0, 1 - math.floor(math.log10(deviation)))
    return f"{mean:.{decimals}f} ± {deviation:.{decimals}f}"


class Metric(NamedTuple):
    """What is measured of two sets, and the columns that show it."""

    measure: Callable[[Features, Features], Figures]
    columns: list[Column]


def plain(*names: str) -> list[Column]:
    """Columns of figures by their own names."""
    return [Column(name, f"{{{name}:#.4g}}") for name in names]


METRICS = [
    Metric(frechet, [Column("{distance}", "{frechet:#.4g}")]),
    Metric(kid, [Column("KID", kid_text)]),
    Metric(neighbourhoods, plain("precision", "recall", "density", "coverage")),
]
COLUMNS = [column for metric in METRICS for column in metric.columns]


def compare(real: Features, fake: Features) -> Figures:
    """All metrics of a set against real images; the work of the main process."""
    figures: Figures = {}
    for metric in METRICS:
        figures |= metric.measure(real, fake)
    return figures


def features_of_row(subject: Subject, name: str) -> Features:
    """What the network sees in a row of the ladder, or in the test images."""
    images, batch = subject.row(name), subject.config.inference_batch
    return Features(features_of(subject.extractor, images, subject.n, batch))


def ladder(subject: Subject) -> Figures:
    """Each row against real test images."""
    real = features_of_row(subject, "test")
    rows = {}
    for name in bar(subject.rows, "ladder", unit="row", active=is_main()):
        fake = features_of_row(subject, name)
        rows[name] = on_main(compare, real, fake)
    extractor = subject.extractor
    figures = {"features": extractor.name, "distance": extractor.distance, "images": subject.n, "rows": rows}
    return figures | (class_shares(subject) if subject.label_names else {})


def class_shares(subject: Subject) -> Figures:
    """The classes that samples were asked for, and how uneven those of the test images are."""
    shares = subject.test_labels().bincount(minlength=len(subject.label_names)) / subject.n
    return {"classes": subject.config.classes, "test_classes": [shares.min().item(), shares.max().item()]}


def uneven_text(figures: Figures) -> str:
    """A word on samples of as many of each class where those of the test images are not about as many."""
    least, most = figures.get("test_classes", (1, 1))
    if figures.get("classes") == "test" or most <= UNEVEN * least:
        return ""
    return (
        f"Samples are as many of each class, and of the test images {most:.1%} are of the commonest and "
        f"{least:.1%} of the rarest, which is a part of the distance: --classes test draws samples of theirs."
    )


def tables(figures: Figures) -> list[Table]:
    """One table, a row a set."""
    title = "against {images:,} real test images, as many in each row, features: {features}"
    if figures.get("classes") == "test":
        title += "; samples of their classes"
    measured = figures.get("rows", {})
    there = {name: words for name, words in ROWS.items() if name in measured or name != "true_coarse"}
    rows = {words: measured.get(name, {}) for name, words in there.items()}
    own = " The features are of a classifier of the run's own labels: not comparable with any FID."
    note = NOTE + own if figures.get("features") == CLASSIFIER else NOTE
    return [column_table(title, COLUMNS, rows, figures, note=note, warning=uneven_text(figures))]


PART = Part(
    "ladder",
    "The ladder: sets of images against real test images",
    ladder,
    tables,
    depends_on=(row_size, samples, features),
    needs_features=True,
    needs_images=2,
    of_all_classes=True,
    tiles=(Row("{distance} of samples", "{rows[samples][frechet]:#.4g}"),),
)
