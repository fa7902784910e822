"""Sampling from priors of random weights, and encoding, side by side with what they cost at least."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.device import cleared, synchronize
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.steps import CLASSES, config_of
from vqprior.runtime import devices
from vqprior.runtime.codes import Level
from vqprior.runtime.pictures import to_float
from vqprior.runtime.processes import device_of_process
from vqprior.runtime.randomness import generator
from vqprior.sampling.choice import Choice
from vqprior.sampling.noise import GumbelNoise, Noise, gumbel_noise
from vqprior.sampling.sampler import map_of, rows
from vqprior.sampling.workspace import Workspace
from vqprior.stage1_vqvae.vqvae import VQVAE
from vqprior.stage2_prior.prior import Prior
from vqprior.stage2_prior.priors import build


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes, the device's queue included."""
    synchronize()
    began = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - began


def in_turn(works: dict[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Median seconds of each, measured in turn after two calls: the second may record what is replayed."""
    for work in (*works.values(), *works.values()):
        work()
    rounds = [{name: seconds(work) for name, work in works.items()} for _ in range(repetitions)]
    return {name: statistics.median(times[name] for times in rounds) for name in works}


def drawn(
    workspace: Workspace,
    prior: Prior,
    labels: Tensor | None,
    noise: Noise,
    *,
    in_full: bool = False,
) -> Tensor:
    """Code maps [B, h, w] of B maps with this noise, from the cache of the prior or by full forwards."""
    maps, height = len(noise(0, 1)), prior.level.height
    cache = workspace.cache(prior, labels, (), Choice(), maps=maps, in_full=in_full)
    return map_of(rows(cache, noise, Choice(), workspace.rows, height))


def replayed(workspace: Workspace, prior: Prior, labels: Tensor | None, noise: GumbelNoise) -> Tensor:
    """The same as they are drawn for users: on CUDA the second call records, and later ones replay."""
    return map_of(workspace.draw(prior, labels, (), noise, Choice(), maps=len(noise.hashed)))


@torch.no_grad()
def sampling(preset: str, batch: int, settings: Settings) -> dict[str, Any]:
    """Cached sampling of one batch beside one full forward, in fp32."""
    config, device, classes = config_of(preset, *settings.flags), device_of_process(), CLASSES[preset]
    torch.manual_seed(0)
    height, width = (pixels // config.stage1.factor for pixels in config.data.size)
    prior = build(config.stage2, [Level(config.stage1.K, height, width)], classes).to(device).eval()
    prior.requires_grad_(False).to(memory_format=torch.channels_last)
    codes = torch.randint(config.stage1.K, (batch, height, width), generator=generator(0)).to(device)
    labels = (torch.arange(batch) % classes).to(device) if classes else None
    noise = gumbel_noise(0, torch.arange(batch).to(device), prior.K)
    workspace = Workspace()
    with cleared():
        took = in_turn(
            {
                "forward": lambda: prior(codes, labels),
                "cached": lambda: drawn(workspace, prior, labels, noise),
                "recorded": lambda: replayed(workspace, prior, labels, noise),
            },
            settings.repetitions,
        )
    return {
        "preset": preset,
        "batch": batch,
        "images_per_second": batch / took["recorded"],
        "ms_a_code": 1000 * took["cached"] / (height * width),
        "recorded_ms_a_code": 1000 * took["recorded"] / (height * width),
        "forward_ms": 1000 * took["forward"],
        "cached_over_forward": took["recorded"] / took["forward"],
    }


@torch.no_grad()
def encoding(preset: str, settings: Settings) -> dict[str, Any]:
    """Pictures on the CPU to codes on the CPU, as `encode` does it, in IEEE fp32."""
    config, device = config_of(preset, *settings.flags), device_of_process()
    torch.manual_seed(0)
    model = VQVAE(config).to(device, memory_format=torch.channels_last).eval()
    batch = config.inference_batch
    pictures = torch.randint(256, (batch, config.data.channels, *config.data.size), dtype=torch.uint8)
    encode = lambda: model.encode(to_float(pictures, device, channels_last=True))[0].codes.cpu()
    with cleared(), devices.convolutions(device, "no"):
        took = in_turn({"encode": encode}, settings.repetitions)["encode"]
    return {"preset": preset, "batch": batch, "images_per_second": batch / took}
