"""What bf16 autocast, channels_last and torch.compile buy in training, side by side in one run.

    python -m benchmarks.training_speed --preset cifar10

Images a second of one optimizer step of each stage (forward, backward, AdamW) on made-up data, for each
combination, as a ratio to plain fp32. The combinations are measured in turn, several times over; the figure
is the median.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from vqprior import configs
from vqprior.configs import Config
from vqprior.runtime.codes import Level
from vqprior.runtime.launch import autocast
from vqprior.runtime.optimizer import adamw
from vqprior.runtime.processes import device_of_process
from vqprior.runtime.transfer import onto
from vqprior.stage1_vqvae.objective import objective, total
from vqprior.stage1_vqvae.vqvae import VQVAE
from vqprior.stage2_prior.priors import build


class Trained(NamedTuple):
    """A network on made-up data."""

    step: Callable[[], None]  # does one optimizer step
    model: nn.Module
    optimizer: torch.optim.Optimizer


def stage1(config: Config, precision: str, channels_last: bool, compiled: bool) -> Trained:
    """The VQ-VAE of a configuration."""
    device, batch = device_of_process(), config.stage1.batch_size
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = VQVAE(config).to(device, memory_format=layout)
    network, optimizer = torch.compile(model) if compiled else model, adamw(model, weight_decay=0.0)
    x = torch.rand(batch, config.data.channels, *config.data.size, device=device).to(memory_format=layout)
    variance = x.var().item()

    def step() -> None:
        with autocast(device, precision):
            prediction, quantized = network(x)
        how = dict(likelihood=model.likelihood, variance=variance, beta=config.stage1.beta)
        total(objective(x, prediction, quantized, **how).values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Trained(step, model, optimizer)


def stage2(config: Config, precision: str, channels_last: bool, compiled: bool) -> Trained:
    """The prior of a configuration."""
    device, batch = device_of_process(), config.stage2.batch_size
    layout = torch.channels_last if channels_last else torch.contiguous_format
    size = [pixels // config.stage1.factor for pixels in config.data.size]
    model = build(config.stage2, [Level(config.stage1.K, *size)], 10).to(device, memory_format=layout)
    network, optimizer = torch.compile(model) if compiled else model, adamw(model, weight_decay=0.0)
    codes, labels = (
        torch.randint(config.stage1.K, (batch, *size), device=device),
        torch.arange(batch, device=device) % 10,
    )

    def step() -> None:
        dropped = model.dropout(onto(model.dropout_keys(config.seed, torch.arange(batch)), device))
        with autocast(device, precision):
            logits = network(codes, labels, dropped=dropped)
        F.cross_entropy(logits.float(), codes).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Trained(step, model, optimizer)


def seconds(step: Callable[[], None], steps: int) -> float:
    """Mean time of a step."""
    began = time.perf_counter()
    for _ in range(steps):
        step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="cifar10")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    config = configs.parse(configs.find_preset(options.preset), [])
    print(f"{options.preset}, {device_of_process()}, {torch.get_num_threads()} threads")
    variants = list(
        itertools.product(("no", "bf16"), (False, True), (False, True) if options.compile else (False,))
    )
    for name, make, batch in (
        ("stage 1", stage1, config.stage1.batch_size),
        ("stage 2", stage2, config.stage2.batch_size),
    ):
        steps = [make(config, *variant).step for variant in variants]
        for step in steps:
            step(), step()  # compile, allocate
        rounds = [[seconds(step, options.steps) for step in steps] for _ in range(options.repetitions)]
        medians = [statistics.median(times) for times in zip(*rounds, strict=True)]
        for (precision, channels_last, compiled), median in zip(variants, medians, strict=True):
            words = [
                {"no": "fp32"}.get(precision, precision),
                "channels_last" * channels_last,
                "compiled" * compiled,
            ]
            print(
                f"{name}  {' '.join(filter(None, words)):<30} {batch / median:8.0f} images/s  "
                f"{medians[0] / median:5.2f}x"
            )


if __name__ == "__main__":
    main()
