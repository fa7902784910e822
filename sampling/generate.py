"""Two checkpoints -> new images on disk, shared out over the processes; a killed call goes on where it was.

OUT/
    grid.png         the first images, a column a class where the classes come in turn
    images/00000.png ...
    samples.npz      images uint8 [N, H, W, C] and labels int64 [N] (-1 where there are no classes)
    samples.json     the settings; written last
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from configs.errors import UserError
from configs.schema import Sample
from runtime import checkpoint
from runtime.files import write_array, write_file, write_folder, write_json
from runtime.pictures import grid, save_png
from runtime.processes import each_in_turn, on_main, say
from runtime.run_dir import RunDir

from .generator import Generator
from .sampler import Choice

SHOWN = 100  # images in the grid, at most


def generate(settings: Sample, run: RunDir) -> Path:
    """Draw images as `settings` say and write them; the folder they are in.

    Raises:
        UserError: a stage is missing, the two do not belong together, or there is no such class.
    """
    generator = Generator.from_run(run.path)
    out = Path(settings.out) if settings.out else run.samples
    numbers = torch.arange(settings.n)
    labels = generator.labels_for(numbers, settings.label)
    generator.check_guidance(settings.guidance)
    asked = asdict(settings) | {"out": None, "prior": checkpoint.best(run.stage2).fingerprint}
    if on_main(lambda: _prepare(out, asked)):
        say(f"sample: done, {settings.n} images in {out}")
        return out

    choice = Choice(settings.temperature, settings.top_k, settings.top_p)
    chunks = list(enumerate(numbers.split(settings.batch_size)))

    def draw(chunk: tuple[int, Tensor]) -> None:
        index, images = chunk
        if not (file := _chunk_file(out, index)).is_file():
            drawn = generator.draw(
                images, None if labels is None else labels[images], batch_size=settings.batch_size, seed=settings.seed,
                choice=choice, guidance=settings.guidance, precision=settings.precision,
            )  # fmt: skip
            write_array(file, drawn.permute(0, 2, 3, 1).numpy())

    each_in_turn(chunks, draw, "sample")
    columns = len(generator.label_names) if generator.label_names and settings.label is None else 8
    on_main(lambda: _assemble(out, len(chunks), labels, min(columns, 16), asked))
    say(f"sample: {settings.n} images in {out}, the first of them in {out / 'grid.png'}")
    return out


def _chunks(out: Path) -> Path:
    """Where the chunks of an unfinished call are."""
    return out / ".unfinished"


def _chunk_file(out: Path, index: int) -> Path:
    return _chunks(out) / f"{index:06d}.npy"


def _prepare(out: Path, asked: dict) -> bool:
    """Whether all is done; makes or empties the folder of the chunks, if they are of other settings."""
    done, begun = out / "samples.json", _chunks(out) / "settings.json"
    if (out / "images").exists() and not done.is_file() and not begun.is_file():
        raise UserError(f"{out / 'images'} is there already and was not written by `sample`; give another folder with --out")
    if done.is_file() and json.loads(done.read_text()) == asked:
        return True
    if not begun.is_file() or json.loads(begun.read_text()) != asked:
        begun.parent.mkdir(parents=True, exist_ok=True)
        for chunk in _chunks(out).glob("*.npy"):
            chunk.unlink()
        write_json(begun, asked)
    return False


def _assemble(out: Path, chunks: int, labels: Tensor | None, columns: int, asked: dict) -> None:
    """Chunks -> the files that are asked for, then forget the chunks."""
    (out / "samples.json").unlink(missing_ok=True)
    images = np.concatenate([np.load(_chunk_file(out, index)) for index in range(chunks)])
    numbers = np.full(len(images), -1) if labels is None else labels.numpy()

    def save_npz(path: Path) -> None:
        with open(path, "wb") as file:
            np.savez(file, images=images, labels=numbers.astype(np.int64))

    def save_images(folder: Path) -> None:
        for index, image in enumerate(images):
            Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(folder / f"{index:05d}.png")

    write_file(out / "samples.npz", save_npz)
    write_folder(out / "images", save_images)
    save_png(out / "grid.png", grid(torch.from_numpy(images[:SHOWN]).permute(0, 3, 1, 2), columns))
    write_json(out / "samples.json", asked)
    shutil.rmtree(_chunks(out))
