"""The real training loops on made-up data, one step after the other, for what is measured of them.

Data are random pictures in a folder, and random code maps in the place where `encode` puts them. A loop is
watched where it says that a step is done, and left as soon as enough was seen."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar
from unittest import mock

import numpy as np
import torch
from PIL import Image

from vqprior import configs
from vqprior.configs import Config
from vqprior.runtime import code_maps
from vqprior.runtime.code_maps import Header, Level
from vqprior.runtime.data import load
from vqprior.runtime.launch import settled
from vqprior.runtime.processes import device_of_process
from vqprior.runtime.randomness import generator
from vqprior.runtime.run_dir import RunDir
from vqprior.stage1_vqvae import train as stage1
from vqprior.stage2_prior import train as stage2

CLASSES = {
    "mnist5k": 10,
    "mnist": 10,
    "fashion_mnist": 10,
    "cifar10": 10,
    "celeba64": 0,
    "imagenet128": 1000,
    "mnist_pixelsnail": 10,
    "mnist_transformer": 10,
    "folder": 0,
    "clothing64": 10,
    "ffhq256": 0,
    "imagenet256": 1000,
}
"""Presets whose memory can be counted, and how many classes their data have."""
PRESETS = ("mnist", "cifar10", "celeba64", "imagenet128")
"""Those that are measured, and whose operations are counted."""
FOREVER = str(10**6)  # steps; no checkpoint, evaluation or curve comes before
EVENTS = ("steps", "log_every", "save_every", "eval_every")
MADE_UP = (
    "--data.source",
    "folder",
    "--data.memory_gb",
    "16",
    "--data.validation",
    "0.2",
    "--stage1.codebook.kmeans",
    "False",
)


Watcher = TypeVar("Watcher", bound=Callable[[], None])


class Enough(Exception):
    """The loop has been watched for long enough."""


def config_of(preset: str, *flags: str) -> Config:
    """A preset without the end of its training, without events between two steps, on pictures of a folder."""
    rare = [f"--{stage}.{event}" for stage in ("stage1", "stage2") for event in EVENTS]
    options = [word for name in rare for word in (name, FOREVER)]
    return configs.parse(configs.find_preset(preset), [*options, *MADE_UP, *flags])


def make_pictures(folder: Path, config: Config, count: int) -> None:
    """Random pictures of the size that the run takes, in two classes."""
    height, width = (pixels + config.data.margin for pixels in config.data.size)
    random = np.random.default_rng(0)
    for index in range(count):
        place = folder / "ab"[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        smooth = coarse.resize((width, height), Image.Resampling.BICUBIC)
        smooth.save(place / f"{index}.png", compress_level=1)


def make_codes(folder: Path, config: Config, classes: int, count: int = code_maps.SHARD) -> None:
    """Random code maps, as many in each split."""
    folder.mkdir(parents=True)
    height, width = (pixels // config.stage1.factor for pixels in config.data.size)
    each = config.stage1.codes_per_position
    level = Level(config.stage1.K, height, width * each, each)
    names = [str(number) for number in range(classes)]
    sizes = {"train": count, "validation": 16, "test": 16}
    header = Header([level], "", "", "no", {}, "", names, sizes)
    for split, start, size in code_maps.shard_starts(header):
        codes = torch.randint(level.K, (size, level.height, level.width), generator=generator(0, start))
        labels = torch.arange(size) % classes if classes else None
        keys = [str(start + index) for index in range(size)]
        code_maps.write_shard(folder, header, split, start, (codes,), labels, keys)
    code_maps.finish(folder, header)


def prepare(
    folder: Path, config: Config, stage: str, classes: int, pictures: int
) -> Callable[[Config], None]:
    """Make the data of a stage; a function that trains it on them, from the beginning."""
    run = RunDir(folder / "run")
    if stage == "stage2":
        make_codes(run.codes, config, classes, count=pictures)
        return lambda config: stage2.train(settled(config, device_of_process()), run)
    make_pictures(folder / "pictures", config, pictures)
    data = load(replace(config.data, root=str(folder / "pictures")))
    return lambda config: stage1.train(settled(config, device_of_process()), run, data)


@contextmanager
def after_each_step(call: Watcher) -> Iterator[Watcher]:
    """Inside, both loops call it after each step; `Enough`, raised by it, ends this."""
    with mock.patch.object(stage1.Progress, "advance", lambda progress: call()), suppress(Enough):
        yield call
