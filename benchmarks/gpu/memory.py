"""Memory of a training step, counted without a GPU and without allocating: on torch's fake tensors.

The peak of forward, backward, optimizer and average is counted at half of the preset's batch and at all of
it; the difference is what an image takes, the rest is fixed. All presets and all stages of them: of several
levels of codes each has a prior, whatever its kind. Not in it: CUDA's context and workspaces, what the
allocator rounds up, data that are kept on the device, DDP's buckets and NCCL's buffers. Attention is counted
as the CPU computes it, in fp32 also under bf16."""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.gpu.device import MIB
from benchmarks.gpu.steps import CLASSES, config_of
from vqprior.configs import Config
from vqprior.configs.schema import Precision, Training
from vqprior.runtime.launch import network_of
from vqprior.stage1_vqvae.objective import objective, total
from vqprior.stage1_vqvae.vqvae import VQVAE, levels_of
from vqprior.stage2_prior.priors import build

CARDS = (8, 16, 24, 80)  # GiB
SET_ASIDE = 1536  # MiB of a card, for CUDA's context, workspaces and the desktop
LEFT = 0.08  # share of the rest that stays free: the allocator rounds up
PRECISIONS: dict[str, Precision] = {"bf16": "bf16", "fp32": "no"}


class Need(NamedTuple):
    """What a step takes, in MiB."""

    fixed: float
    image: float

    def largest_batch(self, card: int) -> int:
        """The most images of a step that fit a card of so many GiB, 0 where none does."""
        return max(0, int(((card * 1024 - SET_ASIDE) * (1 - LEFT) - self.fixed) / self.image))


class Allocated(TorchDispatchMode):
    """Inside, the memory of all tensors that come into being and are not gone yet, in bytes."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, Tensor):
                self._hold(result.untyped_storage())
        return results

    def _hold(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        weakref.finalize(storage, self._release, storage.nbytes())
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)

    def _release(self, size: int) -> None:
        self.now -= size


def _to_channels_last(model: nn.Module) -> None:
    """As `Module.to(memory_format=...)`, which refuses fake parameters."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.ndim == 4:
                laid_out = parameter.detach().contiguous(memory_format=torch.channels_last)
                module._parameters[name] = nn.Parameter(laid_out)


def _stage1(config: Config, batch: int) -> tuple[nn.Module, Callable[[], Tensor]]:
    """The VQ-VAE, and a function that gives the loss of a batch."""
    model = VQVAE(config)
    _to_channels_last(model)
    network = network_of(model, config)
    images = torch.zeros(batch, config.data.channels, *config.data.size)
    images = images.contiguous(memory_format=torch.channels_last)

    def loss() -> Tensor:
        prediction, quantized = network(images)
        how = dict(likelihood=model.likelihood, variance=1.0, beta=config.stage1.beta)
        return total(objective(images, prediction.float(), quantized, **how).values())

    return model, loss


def _stage2(config: Config, level: int, batch: int, classes: int) -> tuple[nn.Module, Callable[[], Tensor]]:
    """The prior of a level, and a function that gives the loss of a batch."""
    levels = levels_of(config)[: level + 1]
    model = build(config.stage2_of(level), levels, classes)
    _to_channels_last(model)
    network = network_of(model, config)
    *above, codes = (torch.zeros(batch, *of_level.size, dtype=torch.int64) for of_level in levels)
    labels = torch.zeros(batch, dtype=torch.int64) if classes else None
    keys = model.dropout_keys(config.seed, torch.arange(batch))

    def loss() -> Tensor:
        logits = network(codes, labels, tuple(above), model.dropout(keys)).float()
        return F.cross_entropy(rearrange(logits, "b k h w -> (b h w) k"), codes.flatten())

    return model, loss


class Stage(NamedTuple):
    """What is trained apart: stage one, or the prior of a level, 0 being the coarsest."""

    level: int | None = None

    def settings(self, config: Config) -> Training:
        """How a run trains it."""
        return config.stage1 if self.level is None else config.stage2_of(self.level)

    def build(self, config: Config, batch: int, classes: int) -> tuple[nn.Module, Callable[[], Tensor]]:
        """Its network, and a function that gives the loss of a batch."""
        if self.level is None:
            return _stage1(config, batch)
        return _stage2(config, self.level, batch, classes)

    def __str__(self) -> str:
        return "1" if self.level is None else f"2, level {self.level}" if self.level else "2"


def stages_of(config: Config) -> list[Stage]:
    """Stage one, and the prior of each level."""
    return [Stage(), *map(Stage, range(config.stage1.levels))]


def peak(config: Config, stage: Stage, batch: int, classes: int, precision: str) -> float:
    """The most that is allocated in the second step, in MiB."""
    config = replace(config, precision=PRECISIONS[precision])
    with FakeTensorMode(), Allocated() as allocated:
        model, loss = stage.build(config, batch, classes)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        averaged = stage.settings(config).average
        average = [tensor.clone() for tensor in model.state_dict().values() if averaged]
        for _ in range(2):  # the first step makes the optimizer's moments
            allocated.peak = allocated.now
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                value = loss()
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            del value
        del average
        return allocated.peak / MIB


def need(preset: str, stage: Stage, precision: str) -> Need:
    """Memory of a stage of a preset."""
    config = config_of(preset)
    batch = stage.settings(config).batch_size
    half, full = (peak(config, stage, size, CLASSES[preset], precision) for size in (batch // 2, batch))
    image = (full - half) / (batch - batch // 2)
    return Need(max(0.0, full - batch * image), image)


def row(preset: str, stage: Stage) -> dict[str, Any]:
    """What there is to say of a stage of a preset."""
    needs = {precision: need(preset, stage, precision) for precision in PRECISIONS}
    return {
        "preset": preset,
        "stage": str(stage),
        "batch": stage.settings(config_of(preset)).batch_size,
        "mib": {precision: counted._asdict() for precision, counted in needs.items()},
        "largest_batch": {
            precision: {card: counted.largest_batch(card) for card in CARDS}
            for precision, counted in needs.items()
        },
    }


def table(presets: Sequence[str] = tuple(CLASSES)) -> list[dict[str, Any]]:
    """A row for each stage of each preset."""
    return [row(preset, stage) for preset in presets for stage in stages_of(config_of(preset))]


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The table: MiB, and the largest batch of each card in bf16 and, in brackets, in fp32."""
    cards = " | ".join(f"{card} GB" for card in CARDS)
    lines = [
        f"| preset | stage | fixed MiB | MiB an image, bf16 | fp32 | preset's batch | takes, bf16 | {cards} "
        "|",
        "|---|---|---|---|---|---|---|" + "---|" * len(CARDS),
    ]
    for row in rows:
        low, full = (row["mib"][precision] for precision in PRECISIONS)
        takes = low["fixed"] + row["batch"] * low["image"]
        batches = [[_about(row["largest_batch"][p][card]) for p in PRECISIONS] for card in CARDS]
        cells = [
            row["preset"],
            row["stage"],
            f"{low['fixed']:.0f}",
            f"{low['image']:.2f}",
            f"{full['image']:.2f}",
        ]
        cells += [str(row["batch"]), f"{takes / 1024:.1f} GB", *(f"{low} ({full})" for low, full in batches)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _about(batch: int) -> str:
    return f"{batch:,}" if batch <= 9999 else "> 9,999"
