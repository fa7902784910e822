"""What a prior over maps of codes is, and the logits of one place after the other, which sampling takes.

    prior = build(config.stage2, level, classes)
    logits = prior(codes, labels, above)          # [B, K, h, w], each of earlier codes alone
    cache = prior.cache(labels, above, maps=B)    # sampling: see sampling/sampler.py
    for i in range(h):
        cache.begin_row(i)
        for j in range(w):
            cache.put(j, drawn_from(cache.logits(j)))

A prior is a folder here with a subclass of `Prior`, and a line in `priors.py`. Each level of codes has one of
its own, which is told the codes of the levels above, those that are coarser.

Legend: B maps, K codes, h x w the map.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from vqprior.configs.schema import Stage2
from vqprior.runtime.codes import Codes, Level

from .dropout import channel_factors, channel_keys
from .embedding import CodeEmbedding


class Cache(Protocol):
    """Logits of one place after the other of B maps, in raster order: nothing that a prior's later codes
    could change."""

    def reset(self, labels: Tensor | None, above: Codes = ()) -> None:
        """Begin other maps, of these labels [B] or of none and below these codes, in the same memory, with
        the weights of now."""

    def begin_row(self, i: int) -> None:
        """Go on to row i; all rows above are put."""

    def logits(self, j: int) -> Tensor:
        """Logits [B, K] of column j of the row, given all codes put so far."""

    def put(self, j: int, codes: Tensor) -> None:
        """Make known the codes [B] of column j."""


class FullForwards:
    """A `Cache` that runs the whole prior for each code: slow, plainly right, and what every other cache is
    held against.

    Args:
        prior: in evaluation mode.
        labels, above, maps, dtype: as for `Prior.cache`; another type than the prior's is that of
            autocast.
    """

    def __init__(
        self,
        prior: "Prior",
        labels: Tensor | None,
        above: Codes = (),
        *,
        maps: int,
        dtype: torch.dtype | None = None,
    ):
        self.prior, self.labels, self.above, self.dtype, self.i = prior, labels, above, dtype, 0
        self.codes = torch.zeros(maps, *prior.level.size, dtype=torch.int64, device=prior.device)

    def reset(self, labels: Tensor | None, above: Codes = ()) -> None:
        self.labels, self.above = labels, above
        self.codes.zero_()

    def begin_row(self, i: int) -> None:
        self.i = i

    @torch.no_grad()
    def logits(self, j: int) -> Tensor:
        with self.prior.computing(self.dtype):
            return self.prior(self.codes, self.labels, self.above)[:, :, self.i, j]

    def put(self, j: int, codes: Tensor) -> None:
        self.codes[:, self.i, j] = codes


class Prior(nn.Module):
    """p(codes | label, codes of the levels above) as a product over places in raster order.

    FITTING are the settings under its kind's own name that the weights are bound to; CACHE is what `cache`
    makes.

    Args:
        config: of the stage, a `Stage2Fine` where there are levels above.
        level: of the maps; a prior may be asked for maps of other sizes.
        classes: number of labels, 0 for an unconditional prior.
        above: the levels that are coarser, coarsest first.

    Attributes:
        null_label: the label that stands for a hidden one, number `classes`; None where no label is ever
            hidden in training.
        dropout_groups: how many times `config.channels` channels dropout looks at for a map; 0 for none.
    """

    FITTING: ClassVar[tuple[str, ...]] = ()
    CACHE: ClassVar[Callable[..., Cache]] = FullForwards
    dropout_groups = 0

    def __init__(self, config: Stage2, level: Level, classes: int, above: Sequence[Level] = ()):
        super().__init__()
        self.config, self.level, self.classes, self.levels_above = config, level, classes, tuple(above)
        self.null_label = classes if classes and config.label_dropout > 0 else None

    @property
    def K(self) -> int:
        """Number of codes."""
        return self.level.K

    @property
    def labels(self) -> int:
        """Number of labels with the hidden one."""
        return self.classes + (1 if self.null_label is not None else 0)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    def computing(self, dtype: torch.dtype | None) -> AbstractContextManager[None]:
        """For a cache that calls modules of the prior: autocast to this type, and nothing where it is None or
        that of the weights."""
        plain = dtype in (None, self.dtype)
        return nullcontext() if plain else torch.autocast(self.device.type, dtype)

    @abstractmethod
    def forward(
        self,
        codes: Tensor,
        labels: Tensor | None = None,
        above: Codes = (),
        dropped: Any = None,
    ) -> Tensor:
        """Logits [B, K, h, w] of codes [B, h, w] int64 in [0, K), each given all earlier codes, labels [B]
        int64, and all codes above.

        Args:
            above: the codes of the levels above, coarsest first.
            dropped: in training, what `dropout` gives; without it nothing is dropped.

        Raises:
            ValueError: labels given to an unconditional prior, or none to a conditional one; or codes of
                another number of levels.
        """

    def check_given(self, labels: Tensor | None, above: Codes) -> None:
        """Raise what `forward` raises."""
        if (labels is None) != (self.classes == 0):
            raise ValueError(f"the prior has {self.classes} classes, but labels are {labels}")
        if len(above) != len(self.levels_above):
            given = f"those of {len(above)} levels are given"
            raise ValueError(f"the prior has {len(self.levels_above)} levels above, but {given}")

    def dropout_keys(self, seed: int, positions: Tensor) -> Tensor | None:
        """What `dropout` is drawn from, [B, groups] int64 on the CPU, for maps at these positions [B] in the
        order of a run.

        A function of the seed and the positions, of no state and no number of processes; None where nothing
        is dropped.
        """
        is_drawn = self.dropout_groups and self.config.dropout
        return channel_keys(seed, positions, self.dropout_groups) if is_drawn else None

    def dropout(self, keys: Tensor | None) -> Any:
        """What `forward` takes as `dropped`, made where the keys are: factors [B, groups, C]. The training
        loop only hands it on."""
        return None if keys is None else channel_factors(keys, self.config.channels, self.config.dropout)

    def cache(
        self,
        labels: Tensor | None,
        above: Codes = (),
        *,
        maps: int,
        dtype: torch.dtype | None = None,
    ) -> Cache:
        """Logits place by place of maps with these labels [B], or None for an unconditional prior.

        Args:
            above: the codes of the levels above.
            maps: B.
            dtype: that the prior computes in; its own unless given.
        """
        return self.CACHE(self, labels, above, maps=maps, dtype=dtype)

    def forward_numbers(self) -> int:
        """About how many numbers a forward without gradient holds at once for a map: to choose how many go
        together."""
        return 3 * self.K * self.level.places

    def cached_numbers(self) -> int:
        """About how many numbers its cache holds for a map, and what passes through it."""
        return self.forward_numbers()

    def undecayed(self) -> list[str]:
        """Names of parameters of two and more axes that weight decay must leave alone: tables of codes."""
        modules = self.named_modules()
        return [f"{name}.weight" for name, module in modules if isinstance(module, CodeEmbedding)]

    def label_tensors(self) -> list[str]:
        """Names of the tensors whose rows are the classes in order, and then the hidden label."""
        return []
