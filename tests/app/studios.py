"""Studios of small generators, and what is done with them."""

import io

import torch
from PIL import Image

from vqprior import Generator
from vqprior.app.made import Made, settings_of
from vqprior.app.studio import Studio
from vqprior.configs.schema import Data

SIZE = (16, 24)
IMAGE = torch.randint(256, (3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def studio_of(generator: Generator) -> Studio:
    return Studio(generator, Data(size=SIZE, channels=3), "tiny")


def drawn(studio: Studio, count: int = 4, seed: int = 3, method: str = "auto") -> Made:
    sampling = studio.sampling(seed, 0.9, 0.95, 1.5, method)
    labels = studio.labels(None, count)
    *_, codes = studio.draw(labels, count, sampling)
    return studio.made(codes, labels, settings_of(sampling))


def encoded(image: Image.Image, kind: str, **settings) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **settings)
    return file.getvalue()


def png(image: Image.Image, **settings) -> bytes:
    return encoded(image, "PNG", **settings)
