"""Two checkpoints -> new images on disk, shared out over the processes; a killed call goes on where it was.

OUT/
    grid.png         the first images, a column a class where the classes come in turn
    images/00000.png ...
    samples.npz      images uint8 [N, H, W, C], labels int64 [N] (-1 without classes), label_names text [C];
                     with --codes True also the codes
    samples.json     the settings; written last
    verified.json    with --verify True, what a full forward says of the codes

Until then each chunk of images that is done lies in OUT/.unfinished, as an array and as PNGs. No process ever
holds more images than two chunks, the one that it draws and the one before, which a thread writes.
"""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vqprior.configs.schema import Sample
from vqprior.runtime.codes import Level
from vqprior.runtime.devices import refuse_tf32
from vqprior.runtime.files import move_folder, read_json, write_array, write_file, write_json
from vqprior.runtime.npz import write_npz
from vqprior.runtime.pictures import columns_of, grid, save_png
from vqprior.runtime.processes import each_in_turn, on_main, say, share_of_process
from vqprior.runtime.run_dir import RunDir
from vqprior.runtime.unfinished import Unfinished
from vqprior.stage1_vqvae.vqvae import vqvae_of

from .arguments import by_level
from .choice import Sampling
from .decoding import Imported
from .networks import Networks, prior_checkpoints
from .tokenizer import Tokenizer
from .verify import Verified

SHOWN = 100  # images in the grid, at most
WAITING = 4  # times the maps that are settled at once: where one has settled, the next one takes its place


def generate(settings: Sample, run: RunDir) -> Path:
    """Draw images as `settings` say and write them; the folder they are in.

    Raises:
        UserError: a stage is missing, the two do not belong together, or there is no such class.
    """
    networks = Networks.from_run(run.path)
    out = Path(settings.out) if settings.out else run.samples
    numbers = torch.arange(settings.images)
    labels = networks.labels_for(numbers, settings.label)
    networks.check_guidance(settings.guidance)
    unfinished = Unfinished(out, "samples.json", _record(settings, networks, run), "sample")

    # What is done is done with any size; for `auto` that of a call which was begun there: its chunks have it
    as_begun = partial(unfinished.settled, "batch_size", begun=settings.batch_size == "auto")
    batch_size = on_main(lambda: as_begun() or networks.batch_size_of(settings))
    unfinished = replace(unfinished, settings=unfinished.settings | {"batch_size": batch_size})
    imported = isinstance(networks.tokenizer, Imported)
    settings = replace(settings, batch_size=batch_size, codes=settings.codes or imported)
    if settings.precision == "tf32":
        refuse_tf32(networks.device)
    earlier = on_main(read_json, out / unfinished.record)
    if on_main(unfinished.begin, inside="images"):
        say(f"sample: done, {settings.images} images in {out}")
        return out
    if isinstance(earlier, dict) and "n" in earlier:
        say(f"sample: in place of the {earlier['n']} images of an earlier call")

    # Draw, a chunk after the other
    sampling = networks.resolved(Sampling.of(settings, batch_size), settings.images)
    if (settings.method, sampling.method) == ("auto", "parallel"):
        say("sample: --method auto is parallel here, which is faster on a GPU for few images of many codes")
    together = batch_size * (WAITING if settings.method == "parallel" else 1)
    chunks = list(enumerate(numbers.split(together)))
    processes = share_of_process().processes

    def draw(chunk: tuple[int, Tensor]) -> None:
        index, images = chunk
        if not unfinished.part(index).is_file():
            given = None if labels is None else labels[images]
            codes = networks.codes(images, given, sampling)
            if settings.verify:
                verdict = networks.verify(codes, images, given, sampling)
                verdict.refuse(settings.precision)
                write_json(_verified_file(unfinished, index), verdict.figures())
            if settings.codes:
                np.savez(_codes_file(unfinished, index), *(of_level.cpu().numpy() for of_level in codes))
            drawn = networks.decode(codes, sampling)
            behind.begin(lambda: _write(unfinished, index, images, drawn.permute(0, 2, 3, 1).numpy()))
        # the last one of this process, which hears here if it cannot be written
        if index + processes >= len(chunks):
            behind.finish()

    # this ends once it is done with its work, also after an error or a signal
    with ThreadPoolExecutor(1) as thread:
        behind = _Behind(thread)
        each_in_turn(chunks, draw, "sample")

    # Put together what the main process writes
    columns = columns_of(0 if settings.label else len(networks.label_names))
    numbers = np.full(len(numbers), -1) if labels is None else labels.numpy()
    names = np.array(networks.label_names, dtype=np.str_)
    classes = {"labels": numbers.astype(np.int64), "label_names": names}
    if settings.codes:
        classes |= on_main(_all_codes, unfinished, len(chunks), networks.tokenizer.levels)
    verified = on_main(_joined, unfinished, len(chunks)) if settings.verify else None
    on_main(_assemble, unfinished, len(chunks), settings.npz_key, classes, columns, verified)
    if verified:
        say(f"sample: {verified.in_words()}")
    shown = f"the first {SHOWN} of them" if settings.images > SHOWN else "all"
    say(f"sample: {settings.images} images in {out}, {shown} in {out / 'grid.png'}")
    return out


def _record(settings: Sample, networks: Networks, run: RunDir) -> dict[str, Any]:
    """What samples.json keeps of a call, as JSON reads it back, before `auto` is a batch size."""
    priors = prior_checkpoints(run)
    prior, *finer = (saved.fingerprint for saved in priors)
    record = asdict(settings) | {"out": None, "prior": prior} | ({"finer_priors": finer} if finer else {})
    if isinstance(networks.tokenizer, Tokenizer):  # another decoder than the codes' own (stage1.train)
        decoder = vqvae_of(run).fingerprint
        record |= {"decoder": decoder} if decoder != priors[0].meta["codes"]["vqvae"] else {}
    record["n"] = record.pop("images")  # as samples.json has always called it
    record["label"] = settings.label or None  # and had it
    for name in ("method", "verify", "codes"):  # which it has only where they say something
        if record[name] == getattr(Sample(), name):
            del record[name]
    return record


class _Behind:
    """A piece of work in a thread, one at a time, while the caller goes on."""

    def __init__(self, thread: ThreadPoolExecutor):
        self._thread = thread
        self._pending: Future[None] | None = None

    def begin(self, work: Callable[[], None]) -> None:
        """Begin the work once what was begun before is done; raises what that raised."""
        self.finish()
        self._pending = self._thread.submit(work)

    def finish(self) -> None:
        """Wait until what was begun is done; raises what it raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


def _write(unfinished: Unfinished, index: int, images: Tensor, arrays: np.ndarray) -> None:
    """The images [n, H, W, C] of a chunk with these numbers [n], to disk."""
    for number, array in zip(images.tolist(), arrays, strict=True):
        picture = Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)
        picture.save(unfinished.folder / "images" / f"{number:05d}.png")
    write_array(unfinished.part(index), arrays)  # last: where it is, the chunk is done


def _assemble(
    unfinished: Unfinished,
    chunks: int,
    key: str,
    classes: dict[str, np.ndarray],
    columns: int,
    verified: Verified | None,
) -> None:
    """Chunks -> the files that are asked for, then forget the chunks."""
    out, parts = unfinished.out, unfinished.folder
    unfinished.forget_earlier()
    count = len(classes["labels"])
    arrays = unfinished.arrays(chunks)
    write_file(out / "samples.npz", lambda path: write_npz(path, {key: arrays}, count, classes))
    if (parts / "images").is_dir():  # else an earlier call was killed after this
        os.sync()  # the PNGs, all at once
        move_folder(parts / "images", out / "images")
    shown = islice(chain.from_iterable(unfinished.arrays(chunks)), SHOWN)
    first = torch.from_numpy(np.stack(list(shown)))
    save_png(out / "grid.png", grid(first.permute(0, 3, 1, 2), columns))
    (out / "verified.json").unlink(missing_ok=True)  # of an earlier call
    if verified:
        write_json(out / "verified.json", verified.figures())
    unfinished.finish()


def _verified_file(unfinished: Unfinished, index: int) -> Path:
    """What was found of the codes of a chunk."""
    return unfinished.folder / f"verified-{index:05d}.json"


def _codes_file(unfinished: Unfinished, index: int) -> Path:
    """The codes of a chunk."""
    return unfinished.folder / f"codes-{index:05d}.npz"


def _all_codes(unfinished: Unfinished, chunks: int, levels: Sequence[Level]) -> dict[str, np.ndarray]:
    """The codes of all images by name, in the narrowest type."""
    parts = []
    for index in range(chunks):
        with np.load(_codes_file(unfinished, index)) as arrays:
            parts.append([arrays[name] for name in arrays])
    joined = (np.concatenate(of_level) for of_level in zip(*parts, strict=True))
    narrow = tuple(array.astype(level.dtype) for array, level in zip(joined, levels, strict=True))
    return by_level("codes", narrow)


def _joined(unfinished: Unfinished, chunks: int) -> Verified:
    """What was found of all codes."""
    files = (_verified_file(unfinished, index) for index in range(chunks))
    return Verified.joined(Verified.of_figures(json.loads(file.read_text())) for file in files)
