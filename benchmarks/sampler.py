"""What a sample costs, in forward passes: the cached sampler beside one full forward and beside naive
sampling.

    python -m benchmarks.sampler                     the table; --batches, --maps, --channels choose rows
    python -m benchmarks.sampler --parts             where the time of the cached sampler goes
    python -m benchmarks.sampler --precision bf16    both in bf16
    python -m benchmarks.sampler --prior all         of each kind of prior

For each size of batch and map, in one run and on the same random weights: the time of one full forward, of
cached sampling, and of naive sampling (h * w forwards; extrapolated from one where that would take longer
than `--naive_seconds`). Ratios are what counts; they are ratios of medians over repetitions, measured in
turn. On a CUDA GPU cached sampling is measured kernel by kernel, and as rows that are recorded (`recorded`),
with the time that recording them took once. Writes the table as JSON too (`--json`).
"""

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import torch

from vqprior.configs.schema import Precision, Stage2
from vqprior.runtime.codes import Level
from vqprior.runtime.devices import convolutions
from vqprior.runtime.graph import can_record
from vqprior.runtime.launch import AUTOCAST, autocast
from vqprior.runtime.processes import device_of_process
from vqprior.sampling import sampler
from vqprior.sampling.choice import Choice
from vqprior.sampling.noise import gumbel_noise
from vqprior.sampling.sampler import map_of, rows
from vqprior.sampling.workspace import Workspace
from vqprior.stage2_prior.prior import Cache
from vqprior.stage2_prior.priors import PRIORS, build


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes, the device's queue included."""
    synchronize = torch.accelerator.synchronize if device_of_process().type != "cpu" else lambda: None
    synchronize()
    began = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - began


@contextmanager
def timed_parts(cache: type[Cache]) -> Iterator[Counter]:
    """Inside, sampling adds the seconds of its parts up in the counter; on a device with a queue these mean
    nothing.

    Args:
        cache: the class of the cache that is sampled from.
    """
    spent: Counter = Counter()
    names = {"reset": "set-up", "begin_row": "rows", "logits": "logits", "put": "putting codes"}
    places = [(cache, name, part) for name, part in names.items()] + [(Choice, "__call__", "choice")]
    real = [getattr(owner, name) for owner, name, _ in places]

    def timed(function: Callable, part: str) -> Callable:
        def call(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            result = function(*arguments, **options)
            spent[part] += time.perf_counter() - began
            return result

        return call

    for (owner, name, part), function in zip(places, real, strict=True):
        setattr(owner, name, timed(function, part))
    try:
        yield spent
    finally:
        for (owner, name, _), function in zip(places, real, strict=True):
            setattr(owner, name, function)


class Case:
    """A prior of one size with random weights, and what is measured on it."""

    def __init__(
        self, kind: str, channels: int, layers: int, K: int, size: int, batch: int, precision: Precision
    ):
        device = device_of_process()
        torch.manual_seed(0)
        settings = Stage2(prior=kind, channels=channels, layers=layers)
        prior = build(settings, [Level(K, size, size)], 10).to(device).eval().requires_grad_(False)
        self.prior = prior.to(memory_format=torch.channels_last)  # the faster layout for the forward
        self.precision, self.device = precision, device
        self.labels = torch.arange(batch, device=device) % 10
        self.codes = torch.randint(K, (batch, size, size), device=device)
        self.workspace = Workspace()  # as in a long series of chunks: the first one makes it
        self.noise = gumbel_noise(0, torch.arange(batch, device=device), K, self.workspace.noise)

    @torch.no_grad()
    def forward(self) -> torch.Tensor:
        """One full forward of the batch."""
        with autocast(self.device, self.precision):
            return self.prior(self.codes, self.labels)

    def cached(self) -> torch.Tensor:
        """The codes of the batch by cached sampling, kernel by kernel."""
        return self._drawn(in_full=False)

    def naive(self) -> torch.Tensor:
        """The codes of the batch by a full forward for each."""
        return self._drawn(in_full=True)

    @torch.no_grad()
    def recorded(self) -> torch.Tensor:
        """The codes of the batch as they are drawn for users: on CUDA the second call records, and later ones
        replay."""
        given = (self.prior, self.labels, (), self.noise, Choice())
        with convolutions(self.device, self.precision):
            return map_of(self.workspace.draw(*given, **self._how()))

    def _drawn(self, *, in_full: bool) -> torch.Tensor:
        choice, memory = Choice(), Workspace() if in_full else self.workspace
        with convolutions(self.device, self.precision):
            cache = memory.cache(self.prior, self.labels, (), choice, **self._how(), in_full=in_full)
            height = self.prior.level.height
            return map_of(rows(cache, self.noise, choice, memory.rows, height))

    def _how(self) -> dict[str, Any]:
        return dict(maps=len(self.labels), dtype=AUTOCAST.get(self.precision))


def measure(case: Case, repetitions: int, naive_seconds: float) -> dict[str, float | bool]:
    """One row: seconds of a forward, of cached and of naive sampling, and their ratios."""
    case.forward(), case.cached()
    ways = {"forward": case.forward, "cached": case.cached}
    once = {}
    if can_record(case.device):
        ways["recorded"] = case.recorded
        once = {"first_s": seconds(case.recorded), "recording_s": seconds(case.recorded)}
    rounds = [{name: seconds(way) for name, way in ways.items()} for _ in range(repetitions)]
    medians = {name: statistics.median(times[name] for times in rounds) for name in ways}
    forward, sample = medians["forward"], medians.get("recorded", medians["cached"])
    naive, extrapolated = forward * case.prior.level.places, True
    if naive < naive_seconds:
        naive, extrapolated = seconds(case.naive), False
    return {
        **{f"{name}_s": median for name, median in medians.items()},
        **once,
        "naive_s": naive,
        "naive_extrapolated": extrapolated,
        "cached_over_forward": sample / forward,
        "naive_over_cached": naive / sample,
        "images_per_second": len(case.labels) / sample,
    }


def parts(case: Case, repetitions: int) -> dict[str, float]:
    """Seconds of the parts of cached sampling, means over repetitions."""
    case.cached()
    case.noise = _timed_noise(case.noise, spent := Counter())
    with timed_parts(type(case.prior.cache(case.labels, maps=len(case.labels)))) as found:
        total = sum(seconds(case.cached) for _ in range(repetitions))
    found += spent
    found["the loop around them"] = total - sum(found.values())
    return {part: value / repetitions for part, value in found.most_common()}


def _timed_noise(noise: sampler.Noise, spent: Counter) -> sampler.Noise:
    def call(i: int, width: int) -> torch.Tensor:
        began = time.perf_counter()
        row = noise(i, width)
        spent["noise"] += time.perf_counter() - began
        return row

    return call


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--maps", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--layers", type=int, default=None, help="15, and 6 of the transformer")
    parser.add_argument("--prior", choices=["all", *PRIORS], default="gated_pixelcnn")
    parser.add_argument("--K", type=int, default=512)
    parser.add_argument("--precision", choices=["no", "bf16"], default="no")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--naive_seconds", type=float, default=30.0, help="naive sampling is extrapolated beyond that"
    )
    parser.add_argument(
        "--codes", type=int, default=300_000, help="leave out rows of more codes: batch * map * map"
    )
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    threads, rows = torch.get_num_threads(), []
    print(f"K={options.K}, precision {options.precision}, {device_of_process()}, {threads} threads")
    if not options.parts:
        print(
            "prior           layers channels   map  batch     forward      cached    recorded /forward      "
            "naive naive/  images/s"
        )
    kinds = PRIORS if options.prior == "all" else [options.prior]
    for kind, channels, size, batch in product(kinds, options.channels, options.maps, options.batches):
        if batch * size * size > options.codes:
            continue
        layers = options.layers or (6 if kind == "transformer" else 15)
        case = Case(kind, channels, layers, options.K, size, batch, options.precision)
        row: dict[str, Any] = {
            "prior": kind,
            "layers": layers,
            "channels": channels,
            "map": size,
            "batch": batch,
        }
        said = f"{kind:15} {layers:6} {channels:8} {size:5} {batch:6}"
        if options.parts:
            row["parts_s"] = parts(case, options.repetitions)
            shares = (f"{name} {value * 1000:.0f} ms" for name, value in row["parts_s"].items())
            print(f"{said} {', '.join(shares)}", flush=True)
        else:
            row |= measure(case, options.repetitions, options.naive_seconds)
            sign = "~" if row["naive_extrapolated"] else " "
            recorded = f"{row['recorded_s']:9.4f} s" if "recorded_s" in row else f"{'-':>11}"
            print(
                f"{said} {row['forward_s']:9.4f} s {row['cached_s']:9.4f} s {recorded} "
                f"{row['cached_over_forward']:8.2f} {sign}{row['naive_s']:7.1f} s "
                f"{row['naive_over_cached']:5.0f}x {row['images_per_second']:9.1f}",
                flush=True,
            )
        rows.append(row)
        if options.json:  # whoever has no more time has what was measured
            about = {"K": options.K, "precision": options.precision, "threads": threads}
            about |= {"device": str(device_of_process()), "rows": rows}
            options.json.write_text(json.dumps(about, indent=2))


if __name__ == "__main__":
    main()
