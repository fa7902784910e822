"""The memory that maps are drawn in: taken for the first of them, and used again by all others of the same
size.

On a GPU the work for a code is then the same operations on the same memory for each row and for each chunk of
maps.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from vqprior.configs.schema import Precision
from vqprior.runtime import graph
from vqprior.runtime.codes import Codes
from vqprior.runtime.launch import autocast
from vqprior.stage2_prior.prior import Cache, FullForwards, Prior

from .choice import Choice
from .noise import GumbelNoise, Noise, NoiseMemory
from .parallel import Given, Slots
from .recorded import RecordedRows
from .sampler import Guided, is_guided, rows


class Workspace:
    """The memory of one chunk of maps: for what the prior keeps of them, rows of codes, and the noise of a
    row."""

    def __init__(self) -> None:
        self.in_inference = torch.is_inference_mode_enabled()
        self.noise = NoiseMemory()
        self.rows = torch.empty(0, dtype=torch.int64)
        """[2, B, w]: see `sampler.rows`."""
        self._cached_for: tuple[object, ...] = ()
        self._cache: Cache | None = None
        # On CUDA: how maps were drawn last, and what was recorded of it
        self._drawn_last: tuple[object, ...] = ()
        self._recorded: RecordedRows | None = None
        self._recordable = True
        # Of the parallel method
        self._slots_for: tuple[object, ...] = ()
        self._slots: Slots | None = None

    def draw(
        self,
        prior: Prior,
        labels: Tensor | None,
        above: Codes,
        noise: Noise,
        choice: Choice,
        known: Tensor | None = None,
        *,
        maps: int,
        dtype: torch.dtype | None = None,
        in_full: bool = False,
    ) -> Iterator[Tensor]:
        """The rows of B maps, [B, w] int64, one after the other: see `sampler.rows`.

        On CUDA the rows of maps that are drawn as the ones before were are recorded, and one launch each from
        then on.

        Args:
            labels, above, maps, dtype: as for `Prior.cache`.
            noise, choice, known: as for `sampler.rows`.
            in_full: run the whole prior for each code, whatever cache it has of its own.
        """
        cache = self.cache(prior, labels, above, choice, maps=maps, dtype=dtype, in_full=in_full)
        given = (cache, noise, choice, self.rows, prior.level.height, known)
        own = isinstance(noise, GumbelNoise) and not isinstance(self._cache, FullForwards)
        if not (own and graph.can_record(prior.device)):
            return rows(*given)
        how = (choice.kind(), known is None, graph.arithmetic())
        if how != self._drawn_last:  # for the first time, in which libraries are set up too
            self._drawn_last, self._recorded = how, None
            return rows(*given)
        if self._recorded is None and self._recordable:
            try:
                self._recorded = RecordedRows(*given)
                # What is recorded writes there whatever comes between: it is nobody else's from now on
                self.noise, self.rows = NoiseMemory(), torch.empty(0, dtype=torch.int64)
            except RuntimeError as error:
                self._recordable = False
                graph.say_not_recorded("rows", error)
            cache.reset(labels, above)
        return rows(*given) if self._recorded is None else self._recorded(noise, choice, known)

    def slots(self, prior: Prior, given: Given, count: int, precision: Precision) -> Slots:
        """Slots for so many maps of the prior, in a precision: where rounds are recorded those that are
        there, if they are of this kind."""

        def forward(codes: Tensor, labels: Tensor | None, above: Codes) -> Tensor:
            # without the cache of cast weights: a recorded round would go on with what was cast before it
            with autocast(prior.device, precision, cached=False):
                return prior(codes, labels, above)

        if not graph.can_record(prior.device):
            return Slots(prior, given, count, forward)
        sizes = given.labels is None, *(level.shape[1:] for level in given.above)
        what = (*_of(prior), count, precision, graph.arithmetic(), given.choice.kind(), *sizes)
        if self._slots is None or what != self._slots_for:
            self._slots = None  # first give back what is there
            self._slots, self._slots_for = Slots(prior, given, count, forward), what
        return self._slots

    def cache(
        self,
        prior: Prior,
        labels: Tensor | None,
        above: Codes,
        choice: Choice,
        *,
        maps: int,
        dtype: torch.dtype | None = None,
        in_full: bool = False,
    ) -> Cache:
        """A cache at the beginning of B maps, guided as the choice says, with the weights that the prior has
        now: the one that is there, if it is of this size, else a new one.

        Args:
            labels, above, maps, dtype: as for `Prior.cache`.
            in_full: run the whole prior for each code, whatever cache it has of its own.
        """
        guided = is_guided(choice.guidance)
        if guided:
            labels, above = Guided.both(labels, above, prior.null_label)
        count = 2 * maps if guided else maps
        needed = (*_of(prior), count, dtype, in_full)
        if self._cache is not None and needed == self._cached_for:
            self._cache.reset(labels, above)
        else:
            self._cache, self._drawn_last, self._recorded = None, (), None  # first give back what is there
            make = FullForwards if in_full else type(prior).cache
            self._cache = make(prior, labels, above, maps=count, dtype=dtype)
            self._cached_for = needed
        if self.rows.shape[1:] != (maps, prior.level.width) or self.rows.device != prior.device:
            self.rows = torch.empty(2, maps, prior.level.width, dtype=torch.int64, device=prior.device)
        return Guided(self._cache, prior.null_label, choice.guidance) if guided else self._cache


def _of(prior: Prior) -> tuple[object, ...]:
    """What says that it is this prior, with its weights where they were."""
    places = tuple(tensor.data_ptr() for tensor in (*prior.parameters(), *prior.buffers()))
    return id(prior), prior.device, prior.dtype, places


class Spare:
    """One workspace that is not in use; calls from several threads each have one, of which the last to end is
    kept. What was taken under `torch.inference_mode` may be written to under it alone, and makes room for
    another one."""

    def __init__(self) -> None:
        self._kept: list[Workspace] = []

    def __reduce__(self) -> tuple[type["Spare"], tuple[()]]:
        return Spare, ()  # copies and pickles of networks take memory of their own

    @contextmanager
    def lent(self) -> Iterator[Workspace]:
        """A workspace for the time of a chunk."""
        try:
            workspace = self._kept.pop()
        except IndexError:
            workspace = Workspace()
        if workspace.in_inference != torch.is_inference_mode_enabled():
            workspace = Workspace()
        yield workspace
        self._kept = [workspace]

    def clear(self) -> None:
        """Give the memory back."""
        self._kept = []
