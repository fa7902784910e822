"""What a sample costs, in forward passes: the cached sampler beside one full forward and beside naive sampling.

    python -m benchmarks.sampler

For each size of batch and map, in one run and on the same random weights: the time of one full forward, of cached sampling,
and of naive sampling (h * w forwards; extrapolated from a few where it would take too long). Ratios are what counts; they
are medians over repetitions, the three measured in turn. Writes the table as JSON too (`--json`).
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from configs.schema import Stage2
from runtime.processes import device_of_process
from sampling.noise import gumbel_noise
from sampling.sampler import Choice, sample_cached
from stage2_prior.pixelcnn import PixelCNN

K = 512


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes, the device's queue included."""
    device = device_of_process()
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def measure(channels: int, layers: int, size: int, batch: int, repetitions: int) -> dict[str, float | int]:
    """One row: seconds of a forward and of cached sampling, and their ratio and naive sampling's."""
    device = device_of_process()
    torch.manual_seed(0)
    prior = PixelCNN(Stage2(channels=channels, layers=layers), K=K, classes=10).to(device).eval().requires_grad_(False)
    labels, codes = torch.arange(batch, device=device) % 10, torch.randint(K, (batch, size, size), device=device)
    noise = gumbel_noise(0, torch.arange(batch, device=device), K)
    prior(codes[:1], labels[:1])
    forwards, cached = [], []
    for _ in range(repetitions):
        forwards.append(seconds(lambda: prior(codes, labels)))
        cached.append(seconds(lambda: sample_cached(prior, labels, noise, Choice(), maps=batch, height=size, width=size)))
    forward, sample = statistics.median(forwards), statistics.median(cached)
    return {
        "channels": channels, "layers": layers, "map": size, "batch": batch, "forward_s": forward, "cached_s": sample,
        "cached_over_forward": sample / forward, "naive_over_cached": size * size * forward / sample,
        "images_per_second": batch / sample,
    }  # fmt: skip


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--maps", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--layers", type=int, default=15)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    print(f"{options.layers} layers, K={K}, fp32, {device_of_process()}, {torch.get_num_threads()} threads")
    print("channels   map  batch   forward    cached   cached/forward   naive/cached   images/s")
    rows = []
    for channels in options.channels:
        for size in options.maps:
            for batch in options.batches:
                row = measure(channels, options.layers, size, batch, options.repetitions)
                rows.append(row)
                print(f"{channels:8} {size:5} {batch:6} {row['forward_s']:8.3f} s {row['cached_s']:8.3f} s "
                      f"{row['cached_over_forward']:16.2f} {row['naive_over_cached']:14.0f} {row['images_per_second']:10.1f}",
                      flush=True)  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
