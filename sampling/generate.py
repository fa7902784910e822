"""Two checkpoints -> new images on disk, shared out over the processes; a killed call goes on where it was.

OUT/
    grid.png         the first images, a column a class where the classes come in turn
    images/00000.png ...
    samples.npz      images uint8 [N, H, W, C], labels int64 [N] (-1 without classes), label_names text [C]
    samples.json     the settings; written last

Until then each chunk of images that is done lies in OUT/.unfinished, as an array and as PNGs. No process ever holds more
images than a chunk, however many are asked for.
"""

import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Sample
from vqprior.runtime import checkpoint
from vqprior.runtime.files import move_folder, write_array, write_file, write_json
from vqprior.runtime.pictures import grid, save_png
from vqprior.runtime.processes import each_in_turn, on_main, say
from vqprior.runtime.run_dir import RunDir

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
    numbers = torch.arange(settings.images)
    labels = generator.labels_for(numbers, settings.label)
    generator.check_guidance(settings.guidance)
    asked = asdict(settings) | {"out": None, "prior": checkpoint.best(run.stage2).fingerprint}
    asked["n"] = asked.pop("images")  # as samples.json has always called it
    asked["label"] = settings.label or None  # and had it
    if on_main(lambda: _prepare(out, asked)):
        say(f"sample: done, {settings.images} images in {out}")
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
            arrays = drawn.permute(0, 2, 3, 1).numpy()
            for number, array in zip(images.tolist(), arrays):
                picture = Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)
                picture.save(_chunks(out) / "images" / f"{number:05d}.png")
            write_array(file, arrays)  # last: where it is, the chunk is done

    each_in_turn(chunks, draw, "sample")
    columns = len(generator.label_names) if generator.label_names and not settings.label else 8
    on_main(lambda: _assemble(out, len(chunks), labels, min(columns, 16), asked, generator.label_names))
    say(f"sample: {settings.images} images in {out}, the first of them in {out / 'grid.png'}")
    return out


def _chunks(out: Path) -> Path:
    """Where the chunks of an unfinished call are."""
    return out / ".unfinished"


def _chunk_file(out: Path, index: int) -> Path:
    return _chunks(out) / f"{index:06d}.npy"


def _holds(path: Path, settings: dict) -> bool:
    """Whether a file is there, intact, and of these settings."""
    try:
        return json.loads(path.read_text()) == settings
    except (OSError, ValueError):
        return False


def _prepare(out: Path, asked: dict) -> bool:
    """Whether all is done; makes or empties the folder of the chunks, if they are of other settings."""
    done, begun = out / "samples.json", _chunks(out) / "settings.json"
    if (out / "images").exists() and not done.is_file() and not begun.is_file():
        raise UserError(f"{out / 'images'} is there already and was not written by `sample`; give another folder with --out")
    if _holds(done, asked):
        shutil.rmtree(_chunks(out), ignore_errors=True)  # of a call that was killed at its very end
        return True
    if not _holds(begun, asked):
        shutil.rmtree(_chunks(out), ignore_errors=True)
        (_chunks(out) / "images").mkdir(parents=True)
        write_json(begun, asked)
    return False


def _assemble(
    out: Path,
    chunks: int,
    labels: Tensor | None,
    columns: int,
    asked: dict,
    label_names: Sequence[str],
) -> None:
    """Chunks -> the files that are asked for, then forget the chunks."""
    (out / "samples.json").unlink(missing_ok=True)

    def arrays() -> Iterator[np.ndarray]:
        return (np.load(_chunk_file(out, index)) for index in range(chunks))

    numbers = np.full(asked["n"], -1) if labels is None else labels.numpy()
    write_file(
        out / "samples.npz",
        lambda path: _write_npz(path, asked["npz_key"], arrays(), numbers.astype(np.int64), label_names),
    )
    if (_chunks(out) / "images").is_dir():  # else an earlier call was killed after this
        os.sync()  # the PNGs, all at once
        move_folder(_chunks(out) / "images", out / "images")
    first = torch.from_numpy(np.stack(list(islice(chain.from_iterable(arrays()), SHOWN))))
    save_png(out / "grid.png", grid(first.permute(0, 3, 1, 2), columns))
    write_json(out / "samples.json", asked)
    shutil.rmtree(_chunks(out))


def _write_npz(
    path: Path,
    key: str,
    arrays: Iterator[np.ndarray],
    labels: np.ndarray,
    label_names: Sequence[str],
) -> None:
    """What `numpy.savez` writes of images (by `key`), labels and their names, one chunk in memory at a time."""
    first = next(arrays)
    header = np.lib.format.header_data_from_array_1_0(first) | {"shape": (len(labels), *first.shape[1:])}
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for array in chain([first], arrays):
                file.write(array.tobytes())
        with archive.open("labels.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array(file, labels)
        with archive.open("label_names.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array(file, np.array(list(label_names), dtype=np.str_))
