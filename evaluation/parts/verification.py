"""Whether drawn codes are those of the prior and the noise; see sampling/verify.py."""

import torch

from vqprior.runtime.chunks import chunks
from vqprior.runtime.processes import share_of_process, sum_numbers
from vqprior.sampling.verify import TOLERANCE, Verified

from ..part import Part, Settings, drawing
from ..subject import Subject
from ..tables import Figures, Row, Table, list_table

IMAGES = 256  # whose codes are looked at: a code that is wrong in one map is wrong in many
ROWS = (
    Row("codes that a full forward chooses otherwise", "{differing:,} of {codes:,}"),
    Row("nearest tie", "{nearest_tie:.2g}"),
    Row("all differences are within rounding", "{sound}"),
)


def method(subject: Subject) -> Settings:
    """How maps are drawn."""
    return {"method": subject.config.sample.method}


def verification(subject: Subject) -> Figures:
    """Draw the first samples again, and look at their codes."""
    networks, settings = subject.networks, subject.config.sample
    sampling = subject.sampling
    count, share = min(IMAGES, subject.n), share_of_process()
    labels, parts = networks.labels_for(torch.arange(count), settings.label), []
    for images, _ in chunks(count, settings.batch_size, share, name="verification"):
        given = None if labels is None else labels[images]
        parts.append(networks.verify(networks.codes(images, given, sampling), images, given, sampling))
    here = Verified.joined(parts)
    codes, differing = (int(count) for count in sum_numbers([here.codes, here.differing]))
    found = Verified(codes, differing, least(here.nearest_tie), -least(-here.largest_gap))
    sound = found.largest_gap <= TOLERANCE[settings.precision]
    return {"images": count, **found.figures(), "sound": "yes" if sound else "NO"}


def least(number: float) -> float:
    """The least of the processes' numbers."""
    share = share_of_process()
    mine = [number if rank == share.rank else 0.0 for rank in range(share.processes)]
    return min(sum_numbers(mine))


def tables(figures: Figures) -> list[Table]:
    """One list."""
    return [list_table("{images:,} samples, proved by full forwards", ROWS, figures)]


PART = Part(
    "verification",
    "Samples that prove themselves",
    verification,
    tables,
    (drawing, method),
    needs_pictures=False,
)
