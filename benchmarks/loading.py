"""Pictures a second, from a file to what the networks see: beside plain Pillow, and with data.cache.

    python -m benchmarks.loading                                   both tables
    python -m benchmarks.loading --pictures 64 --json loading.json

First table: on one thread and in turn, picture by picture, plain Pillow (open, convert, ImageOps.fit, which
resizes bicubically) and ours (`decode` and `prepare`), from bytes in memory. The ratio is that of the total
times. The difference is the mean over all sub-pixels of the absolute difference of the two results, in steps
of 1/255; the largest stands beside it.

Second table: a command's way to pictures in memory (`load`: list, look at every file, decode, prepare) on a
folder of 12 MP photographs: without a cache, with an empty data.cache, and with the full one, for the same
run, which knows its pictures by the sizes and times of their files, and for another one, which reads every
file for its digest; in `data.workers` threads. All are calls in one process, so that Python's start does not
count, and the system has the files in memory.
"""

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps

from vqprior.configs.schema import Data
from vqprior.runtime.data import load
from vqprior.runtime.data.decode import decode
from vqprior.runtime.data.transform import least_size, prepare

GRAIN = 4.0  # standard deviation of what a sensor adds to each sub-pixel
PLACES = 32  # smooth noise: random values this many pixels apart, and bicubic between them


@dataclass(frozen=True)
class Kind:
    """Files of one kind."""

    name: str
    width: int
    height: int
    format: str
    grain: float = 0.0
    progressive: bool = False


KINDS = (
    Kind("JPEG 12 MP, smooth", 4000, 3000, "JPEG"),
    Kind("JPEG 12 MP, grain", 4000, 3000, "JPEG", GRAIN),
    Kind("JPEG 12 MP, progressive", 4000, 3000, "JPEG", GRAIN, progressive=True),
    Kind("JPEG 1 MP, grain", 1152, 864, "JPEG", GRAIN),
    Kind("PNG 1 MP, smooth", 1152, 864, "PNG"),
    Kind("WebP 1 MP, grain", 1152, 864, "WEBP", GRAIN),
    Kind("JPEG 128 px, smooth", 128, 128, "JPEG"),
    Kind("PNG 128 px, smooth", 128, 128, "PNG"),
)


@dataclass(frozen=True)
class Speed:
    """Pictures a second of one kind, by plain Pillow and by ours."""

    kind: str
    pictures: int
    megabytes: float  # of one file, on average
    pillow: float
    ours: float
    ratio: float
    difference: float  # mean absolute, of 255
    largest: int


def encoded(kind: Kind, chance: np.random.Generator) -> bytes:
    """One picture of smooth noise, with grain where its kind says so."""
    few = chance.integers(0, 256, (kind.height // PLACES + 2, kind.width // PLACES + 2, 3), dtype=np.uint8)
    image = Image.fromarray(few).resize((kind.width, kind.height), Image.Resampling.BICUBIC)
    if kind.grain:
        grain = chance.standard_normal((kind.height, kind.width, 3), dtype=np.float32) * kind.grain
        image = Image.fromarray((np.asarray(image) + grain).round().clip(0, 255).astype(np.uint8))
    file = io.BytesIO()
    options = {"quality": 90, "progressive": kind.progressive} if kind.format == "JPEG" else {}
    image.save(file, format=kind.format, **options)
    return file.getvalue()


def by_pillow(content: bytes, data: Data) -> np.ndarray:
    """What most training scripts do, uint8 [C, H, W]."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    fitted = ImageOps.fit(image, data.size[::-1], method=Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(fitted).transpose(2, 0, 1))


def by_ours(content: bytes, data: Data) -> np.ndarray:
    """What this project does, uint8 [C, H, W]."""
    return prepare(decode(content, "a picture", least=least_size(data)), data)


def timed(work: Callable[[bytes, Data], np.ndarray], content: bytes, data: Data) -> tuple[float, np.ndarray]:
    """Seconds of this thread's processor, so that other work on the machine counts less, and the pixels."""
    began = time.thread_time()
    pixels = work(content, data)
    return time.thread_time() - began, pixels


def measure(kind: Kind, data: Data, pictures: int, chance: np.random.Generator) -> Speed:
    """Both ways over as many pictures, in turn; the order changes with every picture."""
    size, spent, differences = 0, {by_pillow: 0.0, by_ours: 0.0}, []
    for index in range(-1, pictures):
        content = encoded(kind, chance)
        found = {}
        for work in (by_pillow, by_ours) if index % 2 else (by_ours, by_pillow):
            seconds, found[work] = timed(work, content, data)
            spent[work] += seconds if index >= 0 else 0.0  # the first is for loading code, and does not count
        differences.append(np.abs(found[by_pillow].astype(int) - found[by_ours]))
        size += len(content) if index >= 0 else 0
    return Speed(
        kind=kind.name,
        pictures=pictures,
        megabytes=size / pictures / 1e6,
        pillow=pictures / spent[by_pillow],
        ours=pictures / spent[by_ours],
        ratio=spent[by_pillow] / spent[by_ours],
        difference=float(np.mean(differences)),
        largest=int(np.max(differences)),
    )


def measure_cache(data: Data, pictures: int, chance: np.random.Generator) -> dict[str, float]:
    """Pictures a second of a whole `load`, on a folder of 12 MP photographs: by what the cache holds."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "pictures"
        root.mkdir()
        for index in range(pictures):
            (root / f"{index:05d}.jpg").write_bytes(encoded(KINDS[1], chance))
        without = replace(data, root=str(root), validation=0.2, test=0.2)
        cached = replace(without, cache=str(Path(folder) / "cache"))
        run, other = Path(folder) / "run", Path(folder) / "other"
        run.mkdir(), other.mkdir()
        commands = (
            ("no cache", without, None),
            ("first, it is empty", cached, run),
            ("second, of the same run", cached, run),
            ("first of another run", cached, other),
        )
        speeds = {}
        for name, settings, of_run in commands:
            began = time.perf_counter()
            load(settings, run=of_run)
            speeds[name] = pictures / (time.perf_counter() - began)
    return speeds


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--pictures", type=int, default=24, help="of each kind; 20 times as many small ones")
    parser.add_argument("--size", type=int, default=64, help="height and width that they are brought to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write all figures here too")
    arguments = parser.parse_args()
    if arguments.pictures < 16:
        parser.error("--pictures must be at least 16, so that none of the splits is empty")
    chance = np.random.default_rng(arguments.seed)
    data = Data(size=(arguments.size, arguments.size))

    machine = f"Pillow {PIL.__version__}, numpy {np.__version__}, {os.cpu_count()} cores"
    print(f"{machine}; to {arguments.size}x{arguments.size}, one thread, seconds of its processor")
    print(f"{'':<26}{'MB':>7}{'Pillow/s':>10}{'ours/s':>10}{'ratio':>8}{'difference':>12}{'largest':>9}")
    speeds = []
    for kind in KINDS:
        count = arguments.pictures * (20 if kind.width < 1000 else 1)
        speeds.append(found := measure(kind, data, count, chance))
        print(
            f"{found.kind:<26}{found.megabytes:>7.2f}{found.pillow:>10.1f}{found.ours:>10.1f}"
            f"{found.ratio:>8.2f}{found.difference:>12.3f}{found.largest:>9}",
            flush=True,
        )

    commands = measure_cache(data, arguments.pictures, chance)
    print(f"\n`load` of {arguments.pictures} files JPEG 12 MP, grain; {data.workers} threads, wall clock")
    for name, speed in commands.items():
        print(f"{name:<26}{speed:>10.1f} pictures/s")
    if arguments.json:
        rows = [asdict(found) for found in speeds]
        tree = {"machine": machine, "size": data.size, "speeds": rows, "load": commands}
        arguments.json.write_text(json.dumps(tree, indent=2) + "\n")


if __name__ == "__main__":
    main()
