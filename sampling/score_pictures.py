"""How unusual the pictures of a folder are, as files; shared out over the processes.

OUT/
    scores.csv      a row a picture: number, name, bits (of several levels of each, too), quantile among the
                    validation pictures, codes_redrawn, difference to its restorations and error of its
                    reconstruction, both mean squared with values in [0, 1]
    scores.npz      names, those figures, and by picture places [N, h, w] (bits of each code), redrawn
                    [N, h, w], restored [N, R, h, w] (codes), differences [N, H, W]; and of what is usual
                    usual [V] (bits of the validation pictures), limits [h, w]; of several levels places0, ...
    unusual.png     the pictures that cost most: picture | heat map | restorations | difference
    pictures/       the same of each, by its number
    skipped.txt     where errors are skipped, pictures that could not be read: `pictures`, name and reason
    scores.json     the settings; written last

The pictures are prepared like those of the run. What is found of a picture depends on no other one.
"""

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vqprior.configs.commands import Score
from vqprior.configs.schema import Data
from vqprior.runtime.chunks import Chunk
from vqprior.runtime.codes import Level, apart, picked
from vqprior.runtime.data.source import Pictures, counted
from vqprior.runtime.files import move_folder, write_array, write_file
from vqprior.runtime.npz import write_npz
from vqprior.runtime.pictures import grid, hot, save_png
from vqprior.runtime.processes import each_in_turn, main_first, on_main, say
from vqprior.runtime.run_dir import RunDir
from vqprior.runtime.unfinished import Unfinished
from vqprior.stage1_vqvae.vqvae import vqvae_of

from .arguments import as_arrays, by_level, numbered
from .choice import Sampling
from .labels import label_of_text
from .networks import Networks, prior_checkpoints
from .other_pictures import content_of, data_of, list_left_out, names_of, pictures_in, read_chunk
from .score import Scored, Usual, bits_by_place, heat, held_out, score

SHOWN = 12  # pictures that unusual.png shows
WHITE = 0.99
"""A heat map is white where a code costs what this share of the usual ones do, at the dearest place."""


def score_pictures(settings: Score, run: RunDir) -> Path:
    """Score the pictures in a folder; the folder that the figures are in.

    Raises:
        UserError: the run is not finished or has no code maps, an unknown class, or pictures as for `encode
            --pictures`.
    """
    networks, data = Networks.from_run(run.path), data_of(run.config().data, settings)
    label = label_of_text(settings.label, networks.label_names) if settings.label else None
    pictures = on_main(pictures_in, Path(settings.pictures), "score")
    record = on_main(_record, settings, run, data, networks, pictures)
    unfinished = Unfinished(Path(settings.out), "scores.json", record, "score")
    if on_main(unfinished.begin, inside="pictures"):
        say(f"score: done, the figures of {settings.pictures} are in {settings.out}")
        return unfinished.out

    size, precision = settings.batch_size, settings.precision
    codes = main_first(held_out, run, label)
    usual_chunks = [*enumerate(torch.arange(len(codes[0])).split(size))]
    chunks = [*enumerate(torch.arange(len(pictures)).split(size), start=len(usual_chunks))]

    def cost(numbered: tuple[int, Tensor]) -> None:
        index, maps = numbered
        if not unfinished.part(index).is_file():
            chunk = Chunk.of(maps, size)
            bits, _ = bits_by_place(networks, picked(codes, chunk.padded), label, precision)
            write_array(unfinished.part(index), chunk.own(bits).numpy())

    each_in_turn(usual_chunks, cost, "what is usual")
    usual = Usual(np.concatenate([np.load(unfinished.part(index)) for index, _ in usual_chunks]), label)
    limits = usual.limits(settings.quantile)
    levels = networks.tokenizer.levels
    white = heat(usual.limits(WHITE)[None], levels, data.size).max()

    def measure(numbered: tuple[int, Tensor]) -> None:
        index, places = numbered
        if unfinished.part(index).is_file():
            return
        images, readable = read_chunk(pictures, places, size, data, unfinished.folder)
        sampling = Sampling(settings.seed, precision=precision, batch_size=size)
        how = dict(restorations=settings.restorations, sampling=sampling, own=len(places))
        scored = score(networks, images, label, limits, **how)
        warm = heat(scored.bits, levels, data.size) / white
        for at, number in enumerate(places.tolist()):
            if readable[at]:
                sheet = _sheet(images[at], scored, at, warm[at])
                Image.fromarray(sheet.numpy()).save(_sheet_file(unfinished.folder, number))
        write_array(unfinished.part(index), _part(scored, readable))  # last: where it is, the chunk is done

    each_in_turn(chunks, measure, "score")
    on_main(_assemble, unfinished, networks, pictures, [index for index, _ in chunks], usual, limits)
    return unfinished.out


def _record(
    settings: Score,
    run: RunDir,
    data: Data,
    networks: Networks,
    pictures: Pictures,
) -> dict[str, Any]:
    """What the figures depend on, as JSON reads it back."""
    record = asdict(settings) | {
        "out": None,
        "on_error": data.on_error,
        "vqvae": vqvae_of(run, warn=say).fingerprint,
        "priors": [found.fingerprint for found in prior_checkpoints(run)],
        "encode_precision": networks.tokenizer.precision,
        "data": data.binding(),
        "content": content_of(pictures),
    }
    return json.loads(json.dumps(record))


def _sheet_file(folder: Path, number: int) -> Path:
    return folder / "pictures" / f"{number:06d}.png"


def _sheet(image: Tensor, scored: Scored, at: int, warm: Tensor) -> Tensor:
    """A picture [C, H, W] | its heat map, [H, W] | restorations | difference."""
    shown = torch.cat([image[None], scored.restorations[at]]).expand(-1, 3, -1, -1)
    difference = hot(scored.differences[at : at + 1].sqrt())
    cells = torch.cat([shown[:1], hot(warm[None]), shown[1:], difference])
    return grid(cells, len(cells))


def _part(scored: Scored, readable: Tensor) -> np.ndarray:
    """A record for each picture of a chunk, without the restorations, which its codes give."""
    columns = scored._asdict() | {"restored": scored.restored.int(), "readable": readable}
    del columns["restorations"]
    arrays = {name: tensor[: len(readable)].numpy() for name, tensor in columns.items()}
    kind = [(name, array.dtype, array.shape[1:]) for name, array in arrays.items()]
    part = np.empty(len(readable), dtype=kind)
    for name, array in arrays.items():
        part[name] = array
    return part


def _assemble(
    unfinished: Unfinished,
    networks: Networks,
    pictures: Pictures,
    indices: list[int],
    usual: Usual,
    limits: Tensor,
) -> None:
    """Chunks -> the files that are asked for, then forget the chunks.

    Raises:
        UserError: no picture could be read.
    """
    out, levels = unfinished.out, networks.tokenizer.levels
    parts = [np.load(unfinished.part(index), mmap_mode="r") for index in indices]
    readable = np.concatenate([part["readable"] for part in parts])
    names, numbers = names_of(pictures, readable, unfinished), np.flatnonzero(readable)
    unfinished.forget_earlier()

    figures = _figures(parts, usual, levels)
    shown = np.argsort(-figures["bits"], kind="stable")[:SHOWN]
    most = figures["quantile"] >= unfinished.settings["quantile"]

    write_file(out / "scores.csv", _table(numbers, names, figures))
    arrays = {"differences": (_readable(part, "differences") for part in parts)}
    for name, field in (("places", "bits"), ("redrawn", "redrawn"), ("restored", "restored")):
        for level, key in enumerate(numbered(name, len(levels))):
            arrays[key] = _of_level(parts, field, levels, level)
    of_usual = {"usual": usual.bits.astype(np.float64).sum(1)}
    of_usual |= by_level("limits", as_arrays(apart(limits, levels)))
    others = {"names": np.array(names, dtype=np.str_)} | figures | of_usual
    write_file(out / "scores.npz", lambda path: write_npz(path, arrays, len(names), others))
    if (unfinished.folder / "pictures").is_dir():  # else an earlier call was killed after this
        os.sync()  # the PNGs, all at once
        move_folder(unfinished.folder / "pictures", out / "pictures")
    sheets = [np.asarray(Image.open(_sheet_file(out, number))) for number in numbers[shown]]
    save_png(out / "unusual.png", torch.from_numpy(np.concatenate(sheets)))
    list_left_out(unfinished, "score")
    unfinished.finish()
    share, bits = unfinished.settings["quantile"], figures["bits"]
    count = counted(len(names), "picture")
    say(
        f"score: {count}, from {bits.min():.1f} to {bits.max():.1f} bits; {most.sum():,} "
        f"cost at least as much as {100 * share:g}% of {len(usual.bits):,} validation pictures.\n"
        f"figures          {out / 'scores.csv'}\nmost unusual     {out / 'unusual.png'}"
    )


def _readable(part: np.ndarray, field: str) -> np.ndarray:
    """A column of the pictures of a part that could be read."""
    return part[field][part["readable"]]


def _of_level(
    parts: Sequence[np.ndarray],
    field: str,
    levels: Sequence[Level],
    level: int,
) -> Iterator[np.ndarray]:
    """The maps of a level, [n, ..., h, w] of each part."""
    dtype = levels[level].dtype if field == "restored" else None
    for part in parts:
        yield np.asarray(apart(torch.from_numpy(_readable(part, field)), levels)[level], dtype=dtype)


def _figures(parts: Sequence[np.ndarray], usual: Usual, levels: Sequence[Level]) -> dict[str, np.ndarray]:
    """The numbers of each picture, [N], by name."""
    of_levels = []
    for level in range(len(levels)):
        sums = (maps.sum((1, 2), dtype=np.float64) for maps in _of_level(parts, "bits", levels, level))
        of_levels.append(np.concatenate([*sums]))
    of_each = dict(zip(numbered("bits", len(levels)), of_levels, strict=True)) if len(levels) > 1 else {}
    total = sum(of_levels)
    redrawn = [_readable(part, "redrawn").sum(1) for part in parts]
    differences = [_readable(part, "differences").mean((1, 2), dtype=np.float64) for part in parts]
    errors = [_readable(part, "reconstruction").astype(np.float64) for part in parts]
    return {
        "bits": total,
        **of_each,
        "quantile": usual.quantile_of(total),
        "codes_redrawn": np.concatenate(redrawn),
        "difference": np.concatenate(differences),
        "reconstruction": np.concatenate(errors),
    }


def _table(numbers: np.ndarray, names: Sequence[str], figures: dict[str, np.ndarray]) -> str:
    """A row a picture, as CSV."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["number", "name", *figures])
    columns = [[f"{value:.6g}" for value in column] for column in figures.values()]
    rows.writerows(zip(numbers, names, *columns, strict=True))
    return text.getvalue()
