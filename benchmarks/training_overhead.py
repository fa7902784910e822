"""What training waits for besides training: checkpoints and data, as ratios measured side by side in one run.

    python -m benchmarks.training_overhead --json overhead.json

Checkpoints: for both stages of a preset on random data, the time that a save holds the loop up, and all the
time that it costs (what the writing thread takes from the steps beside it included), as multiples of one
step; and the same for a save that is waited for.

Data: two gloo processes, one thread each, that train a stage as the loops do (DDP, its codebook reduced), fed
in turn by

    one batch       the same tensor again and again: no loader at all
    memory          this process's slices of the run's batches, from data held in memory
    disk            the same, from PNG files decoded by worker processes (stage one), from mapped code maps
                    (stage two)

The feeds take turns, round after round; `speed` is the median over the rounds of a feed's images/s over those
of one batch, and `CPU time` likewise the CPU time of all processes, workers included, which other work on the
machine disturbs less. Where training uses every core, as here, whatever decodes takes its time away from it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image

from benchmarks.training_speed import Trained, seconds, stage1, stage2
from vqprior import configs
from vqprior.configs import Config
from vqprior.runtime import code_maps
from vqprior.runtime.average import WeightAverage
from vqprior.runtime.checkpoint_writer import Writer
from vqprior.runtime.code_maps import CodeMaps, CodeSplit, Header, Level
from vqprior.runtime.data import load
from vqprior.runtime.feed import fed
from vqprior.runtime.launch import accelerator_for, settled
from vqprior.runtime.loader import code_batches, image_batches
from vqprior.runtime.optimizer import adamw, moments
from vqprior.runtime.pictures import to_float
from vqprior.runtime.processes import (
    device_of_process,
    is_main,
    share_of_process,
    sum_numbers,
    sum_tensor,
    wait,
)
from vqprior.runtime.randomness import generator
from vqprior.runtime.transfer import onto
from vqprior.stage1_vqvae.objective import objective, total
from vqprior.stage1_vqvae.vqvae import VQVAE
from vqprior.stage2_prior.priors import build

BESIDE = 5  # steps beside a save, which ends before they do
AHEAD = 12  # steps after which a stream of pictures is as far ahead as it will be


def checkpoint_cost(trained: Trained, average: bool, rounds: int) -> dict[str, float]:
    """Milliseconds of a step, and what saves cost in multiples of it."""
    tensors = {"model": trained.model.state_dict(), "optimizer": moments(trained.optimizer, trained.model)}
    if average:
        tensors["average"] = WeightAverage(trained.model, 0.9).tensors
    rows = []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        writer = Writer(Path(folder), keep=2)
        for number in range(rounds):
            plain = seconds(trained.step, BESIDE)
            start = time.perf_counter()
            writer.save(2 * number, tensors, {}, None)
            held = time.perf_counter()
            seconds(trained.step, BESIDE)
            writer.finish()
            beside = time.perf_counter()
            writer.save(2 * number + 1, tensors, {}, None)
            writer.finish()
            waited = time.perf_counter()
            rows.append(
                (plain, (held - start) / plain, (beside - start) / plain - BESIDE, (waited - beside) / plain)
            )
    step, held_up, in_all, waited_for = (statistics.median(column) for column in zip(*rows, strict=True))
    size = sum(value.nbytes for content in tensors.values() for value in content.values())
    return {
        "megabytes": size / 1e6,
        "step_ms": 1e3 * step,
        "held_up": held_up,
        "in_all": in_all,
        "waited_for": waited_for,
    }


def make_pictures(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Made-up pictures in two classes: smooth, with some noise."""
    rng = np.random.default_rng(0)
    for index in range(count):
        small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        pixels = np.asarray(small.resize(size[::-1], Image.Resampling.BICUBIC), dtype=np.int64)
        pixels = (pixels + rng.integers(-8, 9, pixels.shape)).clip(0, 255).astype(np.uint8)
        (folder / "ab"[index % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "ab"[index % 2] / f"{index}.png")


def make_codes(folder: Path, config: Config, shards: int = 12) -> None:
    """Random code maps."""
    folder.mkdir()
    height, width = (pixels // config.stage1.factor for pixels in config.data.size)
    header = Header(
        [Level(config.stage1.K, height, width)],
        "",
        "",
        "no",
        {},
        "",
        ["a", "b"],
        {"train": shards * code_maps.SHARD},
    )
    for split, start, size in code_maps.shard_starts(header):
        codes = torch.randint(config.stage1.K, (size, height, width), generator=generator(0, start))
        names = [str(start + index) for index in range(size)]
        code_maps.write_shard(folder, header, split, start, (codes,), torch.arange(size) % 2, names)
    code_maps.finish(folder, header)


Feeds = dict[str, Callable[[int], Iterator[tuple[Any, ...]]]]  # name -> batches from a step on


def stage1_feeds(config: Config, folder: Path) -> tuple[Feeds, float]:
    """What stage one may be fed with, and the seconds that decoding takes one process for a step."""
    settings = replace(config.data, source="folder", root=str(folder))
    held, streamed = load(settings).train, load(replace(settings, memory_gb=0)).train
    how = dict(
        seed=0, batch_size=config.stage1.batch_size, part=share_of_process().slice(config.stage1.batch_size)
    )
    one = next(image_batches(held, device_of_process(), start=0, stop=1, **how))
    times = []
    for index in range(200):
        began = time.perf_counter()
        streamed.read(index)
        times.append(time.perf_counter() - began)
    feeds = {
        "one batch": lambda start: repeat(one),
        "memory": lambda start: image_batches(held, device_of_process(), start=start, stop=2**40, **how),
        "disk": lambda start: image_batches(streamed, device_of_process(), start=start, stop=2**40, **how),
    }
    return feeds, statistics.median(times) * len(one.images)


def stage2_feeds(config: Config, folder: Path) -> Feeds:
    """What stage two may be fed with."""
    mapped = CodeMaps(folder).split("train")
    held = CodeSplit([tuple(map(np.array, shard)) for shard in mapped.shards], mapped.labels)
    how = dict(
        seed=0, batch_size=config.stage2.batch_size, part=share_of_process().slice(config.stage2.batch_size)
    )
    one = next(code_batches(held, device_of_process(), start=0, stop=1, **how))
    return {
        "one batch": lambda start: repeat(one),
        "memory": lambda start: code_batches(held, device_of_process(), start=start, stop=2**40, **how),
        "disk": lambda start: code_batches(mapped, device_of_process(), start=start, stop=2**40, **how),
    }


def stage1_step(config: Config) -> Callable[..., None]:
    """A function that trains stage one on a batch, as its loop does."""
    accelerator, share = accelerator_for(config), share_of_process()
    model = VQVAE(config).to(accelerator.device, memory_format=torch.channels_last)
    network, optimizer = accelerator.prepare(model, adamw(model, weight_decay=0.0))

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        x = to_float(images, accelerator.device, channels_last=True)
        prediction, (quantized,) = network(x)
        how = dict(likelihood=model.likelihood, variance=1.0, beta=config.stage1.beta)
        accelerator.backward(total(objective(x, prediction, [quantized], **how).values()))
        optimizer.step()
        vectors = rearrange(quantized.z_e.detach(), "b d h w -> (b h w) d")
        drawn = torch.randint(len(vectors), (model.K,), generator=generator(0)).to(vectors.device)
        quantizer = model.quantizers[0]
        seen = quantizer.observe(vectors, quantized.codes.flatten(), drawn, share.rank, share.processes)
        quantizer.update(sum_tensor(seen))
        optimizer.zero_grad()

    return step


def stage2_step(config: Config) -> Callable[..., None]:
    """A function that trains stage two on a batch, as its loop does."""
    accelerator = accelerator_for(config)
    size = (pixels // config.stage1.factor for pixels in config.data.size)
    model = build(config.stage2, [Level(config.stage1.K, *size)], 2)
    model.to(accelerator.device, memory_format=torch.channels_last)
    network, optimizer = accelerator.prepare(model, adamw(model, weight_decay=0.0))

    def step(codes: torch.Tensor, labels: torch.Tensor, positions: torch.Tensor) -> None:
        dropped = model.dropout(onto(model.dropout_keys(config.seed, positions), accelerator.device))
        logits = rearrange(network(codes, labels, dropped=dropped), "b k h w -> (b h w) k")
        accelerator.backward(F.cross_entropy(logits, codes.flatten()))
        optimizer.step()
        optimizer.zero_grad()

    return step


def cpu_seconds() -> float:
    """CPU time of this process and of its workers so far."""
    me = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (me, *me.children(recursive=True)))


def feed_in_turn(
    feeds: Feeds, step: Callable[..., None], *, rounds: int, steps: int, warm_up: int
) -> dict[str, list[tuple[float, float]]]:
    """Seconds of a step, and CPU seconds that it takes all processes together, for each feed and round."""
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in feeds}
    for number in range(rounds):
        for name in sorted(feeds, key=lambda name: (list(feeds).index(name) + number) % len(feeds)):
            batches = fed(feeds[name](number * (warm_up + steps)), device_of_process())
            for items in islice(batches, warm_up):
                step(*items)
            wait()
            began, cpu = time.perf_counter(), cpu_seconds()
            for items in islice(batches, steps):
                step(*items)
            wait()
            took[name].append(
                ((time.perf_counter() - began) / steps, sum_numbers([cpu_seconds() - cpu])[0] / steps)
            )
            del batches  # and with them the workers
    return took


def compared(took: dict[str, list[tuple[float, float]]], batch: int) -> dict[str, dict[str, Any]]:
    """What each feed reaches, and in proportion to one batch, which comes first."""
    one = next(iter(took.values()))
    return {
        feed: {
            "images_per_second": batch / statistics.median(wall for wall, _ in rows),
            "speed": statistics.median(a[0] / b[0] for a, b in zip(one, rows, strict=True)),
            "cpu": statistics.median(b[1] / a[1] for a, b in zip(one, rows, strict=True)),
            "rounds": rows,
        }
        for feed, rows in took.items()
    }


def feed_two_processes(config: Config, folder: Path, rounds: int) -> None:
    """One of the two processes; the main one writes feeds.json into the folder."""
    batch = config.stage1.batch_size
    feeds, decoding = stage1_feeds(config, folder / "pictures")
    step, disk = stage1_step(config), feeds.pop("disk")
    found = {"stage1": compared(feed_in_turn(feeds, step, rounds=4 * rounds, steps=4, warm_up=1), batch)}
    took = feed_in_turn(
        {"one batch": feeds["one batch"], "disk": disk}, step, rounds=rounds, steps=20, warm_up=AHEAD
    )
    found["stage1"]["disk"] = compared(took, batch)["disk"]
    found["stage1"]["disk"]["decoding"] = decoding / statistics.median(wall for wall, _ in took["one batch"])

    feeds, step = stage2_feeds(config, folder / "codes"), stage2_step(config)
    took = feed_in_turn(feeds, step, rounds=2 * rounds, steps=2, warm_up=1)
    found["stage2"] = compared(took, config.stage2.batch_size)
    if is_main():
        (folder / "feeds.json").write_text(json.dumps(found))


def data_cost(options: argparse.Namespace, config: Config) -> dict[str, Any]:
    """The figures of the feeds, by stage."""
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name).resolve()
        make_pictures(folder / "pictures", 4000, config.data.size)
        make_codes(folder / "codes", config)
        command = [
            *(
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--nproc_per_node",
                "2",
                "-m",
                "benchmarks.training_overhead",
            )
        ]
        command += ["--preset", options.preset, "--rounds", str(options.rounds)]
        subprocess.run(
            [sys.executable, *command, "--worker", str(folder)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=True,
        )
        return json.loads((folder / "feeds.json").read_text())


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="cifar10")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", type=Path, default=None, help="where to write the result")
    parser.add_argument("--worker", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    config = settled(configs.parse(configs.find_preset(options.preset), []), device_of_process())
    torch.manual_seed(0)
    if options.worker:
        return feed_two_processes(config, options.worker, options.rounds)

    result: dict[str, Any] = {
        "preset": options.preset,
        "device": str(device_of_process()),
        "threads": torch.get_num_threads(),
    }
    print(f"{options.preset}, {result['device']}, {result['threads']} threads")
    for name, make, average in (
        ("stage1", stage1, bool(config.stage1.average)),
        ("stage2", stage2, bool(config.stage2.average)),
    ):
        trained = make(config, config.precision, config.channels_last, config.compile)
        seconds(trained.step, 3)  # allocate
        found = checkpoint_cost(trained, average, options.rounds)
        result[name] = {"checkpoint": found}
        print(
            f"{name}  a checkpoint of {found['megabytes']:.1f} MB, in steps of {found['step_ms']:.1f} ms: "
            f"held up {found['held_up']:.2f}, in all {found['in_all']:.2f}; waited for "
            f"{found['waited_for']:.2f}",
            flush=True,
        )
    for name, found in data_cost(options, config).items():
        result[name]["data"] = found
        for feed, row in found.items():
            rate, speed, cpu = row["images_per_second"], row["speed"], row["cpu"]
            print(
                f"{name}  2 processes fed from {feed:<10} {rate:7.0f} images/s  speed {speed:6.1%}  CPU time "
                f"{cpu:6.1%}"
            )
    print(
        f"stage1  decoding takes {result['stage1']['data']['disk']['decoding']:.1%} of the time of a step "
        "fed from one batch"
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
