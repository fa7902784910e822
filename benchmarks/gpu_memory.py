"""Memory of a training step, counted without a GPU and without allocating: on torch's fake tensors.

The peak of forward, backward, optimizer and average is counted at half of the preset's batch and at all of
it; the difference is what an image takes, the rest is fixed. Not in it: CUDA's context and workspaces, what
the allocator rounds up, data that are kept on the device, DDP's buckets and NCCL's buffers."""

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.gpu_steps import CLASSES, PRESETS, config_of
from vqprior.configs import Config
from vqprior.configs.schema import Precision
from vqprior.runtime.codes import Level
from vqprior.runtime.launch import network_of
from vqprior.stage1_vqvae.objective import objective, total
from vqprior.stage1_vqvae.vqvae import VQVAE
from vqprior.stage2_prior.priors import build

MIB = 2**20
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


def _stage2(config: Config, batch: int, classes: int) -> tuple[nn.Module, Callable[[], Tensor]]:
    """The prior, and a function that gives the loss of a batch."""
    settings = config.stage2
    size = [pixels // config.stage1.factor for pixels in config.data.size]
    model = build(settings, [Level(config.stage1.K, *size)], classes)
    _to_channels_last(model)
    network = network_of(model, config)
    codes = torch.zeros(batch, *size, dtype=torch.int64)
    labels = torch.zeros(batch, dtype=torch.int64) if classes else None
    kept = torch.ones(batch, settings.layers, settings.channels) if settings.dropout else None

    def loss() -> Tensor:
        logits = rearrange(network(codes, labels, kept).float(), "b k h w -> (b h w) k")
        return F.cross_entropy(logits, codes.flatten())

    return model, loss


def peak(config: Config, stage: str, batch: int, classes: int, precision: str) -> float:
    """The most that is allocated in the second step, in MiB."""
    config = replace(config, precision=PRECISIONS[precision])
    with FakeTensorMode(), Allocated() as allocated:
        model, loss = _stage1(config, batch) if stage == "stage1" else _stage2(config, batch, classes)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        average = [tensor.clone() for tensor in model.state_dict().values() if getattr(config, stage).average]
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


def need(preset: str, stage: str, precision: str) -> Need:
    """Memory of a stage of a preset."""
    config = config_of(preset)
    batch = getattr(config, stage).batch_size
    half, full = (peak(config, stage, size, CLASSES[preset], precision) for size in (batch // 2, batch))
    image = (full - half) / (batch - batch // 2)
    return Need(max(0.0, full - batch * image), image)


def table(presets: tuple[str, ...] = PRESETS) -> list[dict[str, Any]]:
    """A row for each stage of each preset."""
    rows = []
    for preset in presets:
        for stage in ("stage1", "stage2"):
            found = {precision: need(preset, stage, precision) for precision in PRECISIONS}
            rows.append({
                "preset": preset,
                "stage": stage,
                "batch": getattr(config_of(preset), stage).batch_size,
                "mib": {precision: value._asdict() for precision, value in found.items()},
                "largest_batch": {p: {gib: n.largest_batch(gib) for gib in CARDS} for p, n in found.items()},
            })  # fmt: skip
    return rows


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
            row["stage"][-1],
            f"{low['fixed']:.0f}",
            f"{low['image']:.2f}",
            f"{full['image']:.2f}",
        ]
        cells += [str(row["batch"]), f"{takes / 1024:.1f} GB", *(f"{low} ({full})" for low, full in batches)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _about(batch: int) -> str:
    return f"{batch:,}" if batch <= 9999 else "> 9,999"
