"""What drawing whole maps at once costs beside drawing code by code: rounds and time, by prior, map, batch.

    python -m benchmarks.parallel models/mnist                      a run's own prior
    python -m benchmarks.parallel --prior all --maps 8 16           priors of random, opinionated weights

Each row draws as many images as fit a batch, by `cached` and by `parallel`, in turn, and compares the codes.
Rounds are those of an image, of all its levels together. On a CUDA GPU both are recorded before they are
timed.
Ratios are what counts; they are ratios of medians over repetitions.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.sampler import seconds
from vqprior.configs.schema import Stage2
from vqprior.runtime.codes import Level
from vqprior.runtime.processes import device_of_process
from vqprior.sampling.choice import Sampling
from vqprior.sampling.decoding import Imported
from vqprior.sampling.networks import Networks
from vqprior.sampling.parallel import settled_maps
from vqprior.stage2_prior.priors import PRIORS, build

SPREAD = 0.1  # of the random weights: enough that codes depend on each other


def of_random_weights(kind: str, size: int, K: int, channels: int) -> Networks:
    """A prior of a kind over maps of size x size, with ten classes."""
    torch.manual_seed(0)
    level, layers = Level(K, size, size), 6 if kind == "transformer" else 12
    prior = build(Stage2(prior=kind, channels=channels, layers=layers), [level], 10)
    for name, parameter in prior.named_parameters():
        nn.init.normal_(parameter, std=1.0 if "logits" in name else SPREAD)
    prior = prior.to(device_of_process()).eval().requires_grad_(False)
    return Networks(Imported([level]), prior, [*"abcdefghij"])


def measure(networks: Networks, batch: int, repetitions: int) -> dict[str, Any]:
    """One row."""
    numbers = torch.arange(batch)
    labels = networks.labels_for(numbers)
    sampling = {method: Sampling(batch_size=batch, method=method) for method in ("cached", "parallel")}
    expected = networks.codes(numbers, labels, sampling["cached"])
    taken, differing, above = torch.zeros(batch, dtype=torch.int64), 0, ()
    for level, of_level in enumerate(expected):
        codes = torch.empty_like(of_level)
        taken += settled_maps(
            networks.rounds(level, numbers, labels, sampling["parallel"], above), batch, codes
        )
        differing += int((codes != of_level).sum())
        above = (*above, codes)
    for how in (*sampling.values(), *sampling.values()):
        networks.codes(numbers, labels, how)
    times: dict[str, list[float]] = {method: [] for method in sampling}
    for _ in range(repetitions):
        for method, how in sampling.items():
            times[method].append(seconds(lambda how=how: networks.codes(numbers, labels, how)))
    cached, parallel = (statistics.median(times[method]) for method in sampling)
    return {
        "batch": batch,
        "codes": sum(prior.level.places for prior in networks.priors),
        "rounds": taken.double().mean().item(),
        "most": int(taken.max()),
        "cached_s": cached,
        "parallel_s": parallel,
        "parallel_over_cached": parallel / cached,
        "differing": differing,
    }


def cases(options: argparse.Namespace) -> Iterator[tuple[str, Networks]]:
    """What is drawn from, by name."""
    if options.run:
        yield str(options.run), Networks.from_run(options.run)
        return
    for kind in PRIORS if options.prior == "all" else [options.prior]:
        for size in options.maps:
            yield f"{kind} {size}x{size}", of_random_weights(kind, size, options.K, options.channels)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, nargs="?", help="a run whose priors are drawn from")
    parser.add_argument("--prior", choices=["all", *PRIORS], default="all")
    parser.add_argument("--maps", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--K", type=int, default=128)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    print(f"{device_of_process()}, {torch.get_num_threads()} threads, fp32")
    print(
        f"{'':<24}{'batch':>6}{'codes':>7}{'rounds':>8}{'most':>6}{'cached':>10}{'parallel':>10}{'ratio':>8}"
    )
    rows = []
    for name, networks in cases(options):
        for batch in options.batches:
            row = measure(networks, batch, options.repetitions)
            print(
                f"{name:<24}{batch:6}{row['codes']:7}{row['rounds']:8.1f}{row['most']:6}"
                f"{row['cached_s']:8.3f} s{row['parallel_s']:8.3f} s{row['parallel_over_cached']:8.2f}",
                flush=True,
            )
            rows.append({"case": name, **row})
    if options.json:
        options.json.write_text(json.dumps({"device": str(device_of_process()), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
