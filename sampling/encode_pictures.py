"""Any folder of pictures -> their codes, as files that other programs read; shared out over the processes.

OUT/
    codes.npz        codes [N, h, w] (uint8 for up to 256 codes, else uint16), names text [N], K; label_names
                     text, the classes of the run, where it has any; of several levels codes0, codes1, ...
    codes.parquet    a row a picture: name, and codes as a list of h * w; h, w, K, ... in the metadata; of
                     several levels columns codes0, codes1, ..., and lists of heights and widths
    skipped.txt      with --on_error skip, pictures that could not be read: `pictures`, name and reason
    codes.json       the settings; written last

The pictures are prepared like those of the run, and encoded by the VQ-VAE of its code maps and its prior.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqprior.configs.commands import EncodePictures
from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data
from vqprior.runtime.chunks import Chunk
from vqprior.runtime.codes import Level, in_words
from vqprior.runtime.data.decode import Unreadable
from vqprior.runtime.data.folder import FileReader, walk
from vqprior.runtime.data.record import SKIPPED, note, noted
from vqprior.runtime.data.source import Pictures, printable
from vqprior.runtime.data.split import decoded
from vqprior.runtime.data.transform import central, prepare
from vqprior.runtime.files import write_array, write_file
from vqprior.runtime.lineage import codes_origin, encodes_as
from vqprior.runtime.npz import write_npz
from vqprior.runtime.processes import each_in_turn, on_main, say
from vqprior.runtime.run_dir import RunDir
from vqprior.runtime.unfinished import Unfinished
from vqprior.stage1_vqvae.vqvae import vqvae_of

from .tokenizer import Tokenizer

LEFT_OUT = -1  # in a chunk, in place of the codes of a picture that cannot be read

Part = tuple[np.ndarray, ...]
"""Codes [n, h, w] of each level."""


def encode_pictures(settings: EncodePictures, run: RunDir) -> Path:
    """Write the codes of the pictures in a folder; the folder they are in.

    Raises:
        UserError: stage one is not trained, there are no pictures, or one cannot be read (on_error `stop`).
    """
    tokenizer, data = Tokenizer.from_run(run.path), run.config().data
    if settings.range:
        data = replace(data, range=settings.range)
    pictures = on_main(_listed, Path(settings.pictures))
    record = on_main(_record, settings, run, data, tokenizer, pictures)
    unfinished = Unfinished(Path(settings.out), "codes.json", record, "encode --pictures")
    if on_main(unfinished.begin, "codes.npz"):
        say(f"encode: done, the codes of {settings.pictures} are in {settings.out}")
        return unfinished.out

    chunks = list(enumerate(torch.arange(len(pictures)).split(tokenizer.batch_size)))
    threads = ThreadPoolExecutor(max(1, min(data.workers, os.cpu_count() or 1)))

    def encode(chunk: tuple[int, Tensor]) -> None:
        index, places = chunk
        if (file := unfinished.part(index)).is_file():
            return
        read = lambda place: _read(pictures, place, data, settings.on_error, unfinished.folder)
        found = [*threads.map(read, places.tolist())]
        blank = torch.zeros(data.channels, *data.size, dtype=torch.uint8)
        images = torch.stack([blank if image is None else image for image in found])
        full = images[Chunk.of(torch.arange(len(places)), tokenizer.batch_size).padded]
        codes = tokenizer.codes_of(full, precision=tokenizer.precision)
        in_a_row = torch.cat([of_level.flatten(1) for of_level in codes], dim=1)[: len(places)]
        in_a_row[torch.tensor([image is None for image in found])] = LEFT_OUT
        write_array(file, in_a_row.numpy().astype(np.int32))  # last: where it is, the chunk is done

    with threads:
        each_in_turn(chunks, encode, "encode")
    on_main(_assemble, unfinished, tokenizer, pictures.keys, len(chunks))
    return unfinished.out


def _listed(root: Path) -> Pictures:
    """The pictures under a folder.

    Raises:
        UserError: it is no folder, or has none.
    """
    if not root.is_dir():
        raise UserError(f"--pictures is {str(root)!r}, which is not a folder; give a folder of images")
    found = walk(root)
    left_out = ", ".join(f"{count:,} {kind}" for kind, count in found.left_out.items())
    if not found.names:
        there = f" (there are {left_out})" if left_out else ""
        raise UserError(f"no images are under {printable(str(root))}{there}; give another folder, --pictures")
    if left_out:
        say(f"encode: {len(found.names):,} pictures in {printable(str(root))}; left out: {left_out}")
    return Pictures(FileReader(root, found.names), [printable(name) for name in found.names], None)


def _record(
    settings: EncodePictures,
    run: RunDir,
    data: Data,
    tokenizer: Tokenizer,
    pictures: Pictures,
) -> dict[str, Any]:
    """What the codes depend on, as JSON reads it back."""
    stamps = hashlib.sha256()
    for index, key in enumerate(pictures.keys):
        try:
            stamp = pictures.reader.stamp(index)
        except OSError as error:
            stamp = (str(error.strerror), 0)
        stamps.update(f"{key}\0{stamp}\n".encode())
    origin = codes_origin(run)
    record = asdict(settings) | {
        "out": None,
        "vqvae": encodes_as(vqvae_of(run, warn=say))["vqvae"],
        "precision": tokenizer.precision,
        "batch": tokenizer.batch_size,
        "data": data.binding(),
        "label_names": origin["label_names"] if origin else [],
        "content": stamps.hexdigest(),
    }
    return json.loads(json.dumps(record))


def _read(pictures: Pictures, index: int, data: Data, on_error: str, listing: Path) -> Tensor | None:
    """A picture as the run's networks see it, uint8 [C, H, W]; None where it is left out and listed.

    Raises:
        UserError: it cannot be read and `on_error` is `stop`, or it has more than 8 bits and no range.
    """
    try:
        picture = decoded(pictures, index, data)
        where = pictures.reader.where(index)
        if isinstance(picture, np.ndarray) and data.range == "auto":
            raise UserError(
                f"{where} has more than 8 bits, and the run learnt from pictures of 8 bits: say which values "
                "are black and white, --range LOW HIGH"
            )
        try:
            pixels = prepare(picture, data)
        except (UserError, ValueError, OSError, MemoryError) as error:
            raise Unreadable(where, str(error)) from error
    except Unreadable as error:
        if on_error == "stop":
            raise UserError(f"{error}; fix it, or go on without it: --on_error skip") from error
        note(listing / SKIPPED, "pictures", pictures.keys[index], error.reason)
        return None
    return central(torch.from_numpy(pixels)[None], data)[0]


def _assemble(unfinished: Unfinished, tokenizer: Tokenizer, keys: list[str], chunks: int) -> None:
    """Chunks -> the files that are asked for, then forget the chunks.

    Raises:
        UserError: no picture could be read.
    """
    out, levels = unfinished.out, tokenizer.levels
    parts = [part.reshape(len(part), -1) for part in unfinished.arrays(chunks)]  # [n, codes of all levels]
    sound = np.concatenate([part[:, 0] != LEFT_OUT for part in parts])
    names = [key for key, is_sound in zip(keys, sound, strict=True) if is_sound]
    if not names:
        listing = unfinished.folder / SKIPPED
        raise UserError(f"none of the {len(keys):,} pictures can be read; {listing} says why")
    unfinished.replace()

    def codes() -> Iterator[Part]:
        for part in parts:
            yield _by_level(part[part[:, 0] != LEFT_OUT], levels)

    label_names = unfinished.settings["label_names"]
    others = {"names": np.array(names, dtype=np.str_), "K": np.array(tokenizer.K)}
    if label_names:
        others["label_names"] = np.array(label_names, dtype=np.str_)
    finer: dict[str, np.ndarray] = {}
    for level in range(1, len(levels)):
        finer[f"codes{level}"] = np.concatenate([part[level] for part in codes()])
    first = (part[0] for part in codes())
    key = "codes0" if finer else "codes"
    write_file(out / "codes.npz", lambda path: write_npz(path, key, first, len(names), others | finer))
    about = _size(levels) | {"K": tokenizer.K, "vqvae": unfinished.settings["vqvae"]}
    about |= {"codes_per_position": levels[0].codes_per_position, "label_names": label_names}
    files = "codes.npz"
    try:
        write_file(out / "codes.parquet", lambda path: _write_parquet(path, codes(), names, levels, about))
        files += " and codes.parquet"
    except ImportError:
        (out / "codes.parquet").unlink(missing_ok=True)  # of an earlier call
        say("encode: codes.parquet is not written, since it needs pyarrow: pip install 'vqprior[data]'")
    (out / SKIPPED).unlink(missing_ok=True)
    if without := noted(unfinished.folder / SKIPPED):
        write_file(out / SKIPPED, (unfinished.folder / SKIPPED).read_bytes())
        left_out = f"{len(without):,} pictures could not be read and were left out"
        say(f"encode: {left_out}; {out / SKIPPED} lists them")
    unfinished.finish()
    say(f"encode: {len(names):,} pictures -> {in_words(levels)}, {files} in {out}")


def _by_level(codes: np.ndarray, levels: Sequence[Level]) -> Part:
    """Codes of all levels in a row, [n, codes], as maps of each."""
    ends = np.cumsum([level.places for level in levels])[:-1]
    maps = zip(levels, np.split(codes, ends, axis=1), strict=True)
    return tuple(of_level.reshape(-1, *level.size).astype(level.dtype) for level, of_level in maps)


def _size(levels: Sequence[Level]) -> dict[str, Any]:
    """Height and width of the one map, or of each of several."""
    if len(levels) == 1:
        return {"height": levels[0].height, "width": levels[0].width}
    return {"heights": [level.height for level in levels], "widths": [level.width for level in levels]}


def _write_parquet(
    path: Path,
    parts: Iterator[Part],
    names: list[str],
    levels: Sequence[Level],
    about: dict[str, Any],
) -> None:
    """A row a picture: its name, and the codes of each level as one list of fixed length.

    Raises:
        ImportError: pyarrow is not installed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    done, columns = 0, [f"codes{index}" if len(levels) > 1 else "codes" for index in range(len(levels))]
    kinds = [pa.list_(pa.from_numpy_dtype(level.dtype), level.places) for level in levels]
    fields = [("name", pa.string()), *zip(columns, kinds, strict=True)]
    metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}
    schema = pa.schema(fields, metadata=metadata)
    with pq.ParquetWriter(path, schema) as writer:
        for part in parts:
            rows: dict[str, Any] = {"name": names[done : done + len(part[0])]}
            for column, level, codes in zip(columns, levels, part, strict=True):
                flat = pa.array(codes.reshape(-1))
                rows[column] = pa.FixedSizeListArray.from_arrays(flat, level.places)
            writer.write_table(pa.table(rows, schema=schema))
            done += len(part[0])
