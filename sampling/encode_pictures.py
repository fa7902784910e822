"""Any folder of pictures -> their codes, as files that other programs read; shared out over the processes.

OUT/
    codes.npz        codes [N, h, w] (uint8 for up to 256 codes, else uint16), names text [N], K; label_names
                     text, the classes of the run, where it has any; of several levels codes0, codes1, ...
    codes.parquet    a row a picture: name, and codes as a list of h * w; h, w, K, ... in the metadata; of
                     several levels columns codes0, codes1, ..., and lists of heights and widths
    skipped.txt      where errors are skipped, pictures that could not be read: `pictures`, name and reason
    codes.json       the settings; written last

The pictures are prepared like those of the run, and encoded by the VQ-VAE of its code maps and its prior.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqprior.configs.commands import EncodePictures
from vqprior.configs.schema import Data
from vqprior.runtime.codes import Level, apart, in_a_row, in_words
from vqprior.runtime.data.source import Pictures, counted
from vqprior.runtime.files import write_array, write_file
from vqprior.runtime.lineage import codes_origin, encodes_as
from vqprior.runtime.npz import write_npz
from vqprior.runtime.processes import each_in_turn, on_main, say
from vqprior.runtime.run_dir import RunDir
from vqprior.runtime.unfinished import Unfinished
from vqprior.stage1_vqvae.vqvae import vqvae_of

from .other_pictures import content_of, data_of, list_left_out, names_of, pictures_in, read_chunk
from .tokenizer import Tokenizer

LEFT_OUT = -1  # in a chunk, in place of the codes of a picture that cannot be read

Part = tuple[np.ndarray, ...]
"""Codes [n, h, w] of each level."""


def encode_pictures(settings: EncodePictures, run: RunDir) -> Path:
    """Write the codes of the pictures in a folder; the folder they are in.

    Raises:
        UserError: stage one is not trained, there are no pictures, or one cannot be read (on_error `stop`).
    """
    tokenizer, data = Tokenizer.from_run(run.path), data_of(run.config().data, settings)
    pictures = on_main(pictures_in, Path(settings.pictures), "encode")
    record = on_main(_record, settings, run, data, tokenizer, pictures)
    unfinished = Unfinished(Path(settings.out), "codes.json", record, "encode --pictures")
    if on_main(unfinished.begin):
        say(f"encode: done, the codes of {settings.pictures} are in {settings.out}")
        return unfinished.out

    chunks = list(enumerate(torch.arange(len(pictures)).split(tokenizer.batch_size)))

    def encode(chunk: tuple[int, Tensor]) -> None:
        index, places = chunk
        if (file := unfinished.part(index)).is_file():
            return
        size, listing = tokenizer.batch_size, unfinished.folder
        images, readable = read_chunk(pictures, places, size, data, listing)
        codes = in_a_row(tokenizer.codes_of(images, precision=tokenizer.precision))[: len(places)]
        codes[~readable] = LEFT_OUT
        write_array(file, codes.numpy().astype(np.int32))  # last: where it is, the chunk is done

    each_in_turn(chunks, encode, "encode")
    on_main(_assemble, unfinished, tokenizer, pictures, len(chunks))
    return unfinished.out


def _record(
    settings: EncodePictures,
    run: RunDir,
    data: Data,
    tokenizer: Tokenizer,
    pictures: Pictures,
) -> dict[str, Any]:
    """What the codes depend on, as JSON reads it back."""
    origin = codes_origin(run)
    record = asdict(settings) | {
        "out": None,
        "on_error": data.on_error,
        "vqvae": encodes_as(vqvae_of(run, warn=say))["vqvae"],
        "precision": tokenizer.precision,
        "batch": tokenizer.batch_size,
        "data": data.binding(),
        "label_names": origin["label_names"] if origin else [],
        "content": content_of(pictures),
    }
    return json.loads(json.dumps(record))


def _assemble(unfinished: Unfinished, tokenizer: Tokenizer, pictures: Pictures, chunks: int) -> None:
    """Chunks -> the files that are asked for, then forget the chunks.

    Raises:
        UserError: no picture could be read.
    """
    out, levels = unfinished.out, tokenizer.levels
    parts = [part.reshape(len(part), -1) for part in unfinished.arrays(chunks)]  # [n, codes of all levels]
    sound = np.concatenate([part[:, 0] != LEFT_OUT for part in parts])
    names = names_of(pictures, sound, unfinished)
    unfinished.forget_earlier()

    def codes() -> Iterator[Part]:
        for part in parts:
            maps = apart(torch.from_numpy(part[part[:, 0] != LEFT_OUT]), levels)
            yield tuple(m.numpy().astype(level.dtype) for m, level in zip(maps, levels, strict=True))

    label_names = unfinished.settings["label_names"]
    numbers = {"K": tokenizer.K, "codes_per_position": levels[0].codes_per_position}
    others = {"names": np.array(names, dtype=np.str_)} | {key: np.array(n) for key, n in numbers.items()}
    if label_names:
        others["label_names"] = np.array(label_names, dtype=np.str_)
    finer: dict[str, np.ndarray] = {}
    for level in range(1, len(levels)):
        finer[f"codes{level}"] = np.concatenate([part[level] for part in codes()])
    first = (part[0] for part in codes())
    key = "codes0" if finer else "codes"
    write_file(out / "codes.npz", lambda path: write_npz(path, {key: first}, len(names), others | finer))
    about = _size(levels) | numbers | {"vqvae": unfinished.settings["vqvae"], "label_names": label_names}
    files = "codes.npz"
    try:
        write_file(out / "codes.parquet", lambda path: _write_parquet(path, codes(), names, levels, about))
        files += " and codes.parquet"
    except ImportError:
        (out / "codes.parquet").unlink(missing_ok=True)  # of an earlier call
        say("encode: codes.parquet is not written, since it needs pyarrow: pip install 'vqprior[data]'")
    list_left_out(unfinished, "encode")
    unfinished.finish()
    say(f"encode: {counted(len(names), 'picture')} -> {in_words(levels)}, {files} in {out}")


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
