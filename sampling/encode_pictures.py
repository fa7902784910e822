"""Any folder of pictures -> their codes, as files that other programs read; shared out over the processes.

OUT/
    codes.npz        codes [N, h, w] (uint8 for up to 256 codes, else uint16), names text [N], K; label_names
                     text, the classes of the run, where it has any
    codes.parquet    a row a picture: name, and codes as a list of h * w; h, w, K, ... in the metadata
    skipped.txt      with --on_error skip, pictures that could not be read: `pictures`, name and reason
    codes.json       the settings; written last

The pictures are prepared like those of the run, and encoded by the VQ-VAE of its code maps and its prior.
"""

import hashlib
import json
import os
from collections.abc import Iterator
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
from vqprior.runtime.data.decode import Unreadable
from vqprior.runtime.data.folder import FileReader, walk
from vqprior.runtime.data.record import SKIPPED, note, noted
from vqprior.runtime.data.source import Pictures, printable
from vqprior.runtime.data.split import decoded
from vqprior.runtime.data.transform import central, prepare
from vqprior.runtime.files import write_array, write_file
from vqprior.runtime.lineage import codes_origin
from vqprior.runtime.loader import padded
from vqprior.runtime.npz import write_npz
from vqprior.runtime.processes import each_in_turn, on_main, say
from vqprior.runtime.run_dir import RunDir
from vqprior.runtime.unfinished import Unfinished
from vqprior.stage1_vqvae.vqvae import vqvae_of

from .tokenizer import Tokenizer

LEFT_OUT = -1  # in a chunk, in place of the codes of a picture that cannot be read


def encode_pictures(settings: EncodePictures, run: RunDir) -> Path:
    """Write the codes of the pictures in a folder; the folder they are in.

    Raises:
        UserError: stage one is not trained, there are no pictures, or one cannot be read (on_error `stop`).
    """
    tokenizer, data = Tokenizer.from_run(run.path), run.config().data
    if settings.range:
        data = replace(data, range=settings.range)
    pictures = on_main(_listed, Path(settings.pictures))
    asked = on_main(_asked, settings, run, data, tokenizer, pictures)
    unfinished = Unfinished(Path(settings.out), "codes.json", asked, "encode --pictures")
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
        full = images[padded(torch.arange(len(places)), tokenizer.batch_size)]
        codes = tokenizer.codes_of(full, precision=tokenizer.precision)[: len(places)]
        codes[torch.tensor([image is None for image in found])] = LEFT_OUT
        write_array(file, codes.numpy().astype(np.int32))  # last: where it is, the chunk is done

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
        raise UserError(f"--pictures is {str(root)!r}, which is no folder; give a folder of images")
    found = walk(root)
    left_out = ", ".join(f"{count:,} {kind}" for kind, count in found.left_out.items())
    if not found.names:
        there = f" (there are {left_out})" if left_out else ""
        raise UserError(f"no images are under {printable(str(root))}{there}; give another folder, --pictures")
    if left_out:
        say(f"encode: {len(found.names):,} pictures in {printable(str(root))}; left out: {left_out}")
    return Pictures(FileReader(root, found.names), [printable(name) for name in found.names], None)


def _asked(
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
    asked = asdict(settings) | {
        "out": None,
        "vqvae": vqvae_of(run, warn=say).fingerprint,
        "precision": tokenizer.precision,
        "batch": tokenizer.batch_size,
        "data": data.binding(),
        "label_names": origin["label_names"] if origin else [],
        "content": stamps.hexdigest(),
    }
    return json.loads(json.dumps(asked))


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
            raise UserError(f"{error}; mend it, or go on without it: --on_error skip") from error
        note(listing / SKIPPED, "pictures", pictures.keys[index], error.reason)
        return None
    return central(torch.from_numpy(pixels)[None], data)[0]


def _assemble(unfinished: Unfinished, tokenizer: Tokenizer, keys: list[str], chunks: int) -> None:
    """Chunks -> the files that are asked for, then forget the chunks.

    Raises:
        UserError: no picture could be read.
    """
    out, dtype = unfinished.out, np.uint8 if tokenizer.K <= 256 else np.uint16
    parts = [np.load(unfinished.part(index), mmap_mode="r") for index in range(chunks)]
    sound = np.concatenate([part[:, 0, 0] != LEFT_OUT for part in parts])
    names = [key for key, is_sound in zip(keys, sound, strict=True) if is_sound]
    if not names:
        listing = unfinished.folder / SKIPPED
        raise UserError(f"none of the {len(keys):,} pictures can be read; {listing} says why")
    unfinished.replace()

    def codes() -> Iterator[np.ndarray]:
        return (part[part[:, 0, 0] != LEFT_OUT].astype(dtype) for part in parts)

    label_names = unfinished.settings["label_names"]
    others = {"names": np.array(names, dtype=np.str_), "K": np.array(tokenizer.K)}
    if label_names:
        others["label_names"] = np.array(label_names, dtype=np.str_)
    write_file(out / "codes.npz", lambda path: write_npz(path, "codes", codes(), len(names), others))
    height, width = tokenizer.map_size
    about = {"height": height, "width": width, "K": tokenizer.K, "vqvae": unfinished.settings["vqvae"]}
    about |= {"codes_per_position": tokenizer.vqvae.codes_per_position, "label_names": label_names}
    files = "codes.npz"
    try:
        write_file(out / "codes.parquet", lambda path: _write_parquet(path, codes(), names, about))
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
    say(f"encode: {len(names):,} pictures -> {height}x{width} codes of {tokenizer.K}, {files} in {out}")


def _write_parquet(path: Path, parts: Iterator[np.ndarray], names: list[str], about: dict[str, Any]) -> None:
    """A row a picture: its name, and its codes [h, w] as one list of fixed length.

    Raises:
        ImportError: pyarrow is not installed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    size, done = about["height"] * about["width"], 0
    kind = pa.uint8() if about["K"] <= 256 else pa.uint16()
    fields = [("name", pa.string()), ("codes", pa.list_(kind, size))]
    metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}
    schema = pa.schema(fields, metadata=metadata)
    with pq.ParquetWriter(path, schema) as writer:
        for part in parts:
            codes = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), size)
            rows = {"name": names[done : done + len(part)], "codes": codes}
            writer.write_table(pa.table(rows, schema=schema))
            done += len(part)
