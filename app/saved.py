"""Pictures as files that say what they are: a PNG and an .npz, each with the settings inside."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vqprior.runtime.codes import Level
from vqprior.runtime.pictures import tiled
from vqprior.sampling.arguments import by_level

from .made import Made

COLUMNS = 8  # of the PNG, at most


def save_png(path: Path, made: Made) -> None:
    """The pictures as one, as many pixels as they have; its text `vqprior` holds the settings, as JSON."""
    about = PngInfo()
    about.add_text("vqprior", json.dumps(made.settings))
    Image.fromarray(tiled(made.images, COLUMNS, padding=2).numpy()).save(path, pnginfo=about)


def save_npz(path: Path, made: Made, levels: tuple[Level, ...], label_names: tuple[str, ...]) -> None:
    """images uint8 [N, H, W, C], codes [N, h, w] (of several levels codes0, codes1, ...), labels int64 [N]
    (-1 where none was told), label_names, bits [N], and settings, as JSON."""
    pairs = zip(made.codes, levels, strict=True)
    codes = tuple(of_level.numpy().astype(level.dtype) for of_level, level in pairs)
    labels = np.full(len(made.images), -1) if made.labels is None else made.labels.numpy()
    np.savez(
        path,
        images=made.images.permute(0, 2, 3, 1).numpy(),
        labels=np.where(labels < len(label_names), labels, -1),
        label_names=np.array(label_names, dtype=np.str_),
        bits=made.bits.numpy(),
        settings=np.array(json.dumps(made.settings)),
        **by_level("codes", codes),
    )
