"""Whether drawn maps of codes copy training maps, more than new real maps do: in codes that differ."""

import torch

from vqprior.runtime.codes import Codes
from vqprior.runtime.processes import each_in_turn, gather_tensor
from vqprior.runtime.randomness import some_of

from ..part import Part, drawing, row_size
from ..subject import Subject
from ..tables import Figures, Row, Table, list_table

PART_OF_TRAIN = 4096  # training maps that are compared at once
MAPS = 2000  # drawn maps, and as many of the test split
ROWS = (
    Row("drawn maps that are in the training set", "{exact:.2%}"),
    Row("test maps that are in the training set", "{exact_test:.2%}"),
    Row("codes that differ from the nearest", "{nearest:.1f} of {places}"),
    Row("test maps: codes that differ", "{nearest_test:.1f} of {places}"),
)


def code_copies(subject: Subject) -> Figures:
    """The Hamming distance of drawn maps, and of test maps, to their nearest training map."""
    count = min(MAPS, subject.n)
    networks, settings = subject.networks, subject.config.sample
    sampling, numbers = subject.sampling, torch.arange(count)
    drawn = networks.codes(numbers, networks.labels_for(numbers, settings.label), sampling)
    test = subject.maps.split("test")
    held_out = test.codes(some_of(len(test), count))
    queries = torch.cat([in_a_row(drawn), in_a_row(held_out)])
    distances = hamming(subject, queries)
    ours, theirs = distances.split(count)
    return {
        "images": count,
        "places": queries.shape[1],
        "exact": (ours == 0).double().mean().item(),
        "exact_test": (theirs == 0).double().mean().item(),
        "nearest": ours.double().mean().item(),
        "nearest_test": theirs.double().mean().item(),
    }


def in_a_row(codes: Codes) -> torch.Tensor:
    """The codes of all levels of each map, [N, places] on the CPU."""
    return torch.cat([of_level.cpu().flatten(1) for of_level in codes], dim=1)


def hamming(subject: Subject, queries: torch.Tensor) -> torch.Tensor:
    """Codes [Q] by which each of the queries [Q, places] differs from its nearest training map; the training
    maps are shared out over the processes."""
    train = subject.maps.split("train")
    least = torch.full((len(queries),), queries.shape[1] + 1, dtype=torch.float64)

    def search(indices: torch.Tensor) -> None:
        there = in_a_row(train.codes(indices))
        for begin in range(0, len(queries), 64):
            part = queries[begin : begin + 64]
            equal = torch.zeros(len(part), len(there), dtype=torch.int32)
            for place in range(queries.shape[1]):
                equal += part[:, place, None] == there[None, :, place]
            nearest = (queries.shape[1] - equal.amax(1)).double()
            least[begin : begin + 64] = torch.minimum(least[begin : begin + 64], nearest)

    each_in_turn(list(torch.arange(len(train)).split(PART_OF_TRAIN)), search, "nearest codes")
    return gather_tensor(least).amin(0)


def tables(figures: Figures) -> list[Table]:
    """One list."""
    title = "{images:,} drawn maps of codes beside the training maps"
    return [list_table(title, ROWS, figures)]


PART = Part(
    "code_copies",
    "Nearest training codes",
    code_copies,
    tables,
    (row_size, drawing),
    needs_pictures=False,
)
