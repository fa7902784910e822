"""Code maps of others -> a run whose prior can be trained: integer grids of a tokenizer, of sound, of pixels.

The files are those of grids.py. What `vqprior encode RUN --pictures FOLDER` writes can be imported as it is.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vqprior.configs import Config
from vqprior.configs.commands import ImportCodes
from vqprior.configs.errors import UserError

from . import code_maps
from .code_maps import Header
from .codes import Level
from .data.source import SPLITS
from .files import refuse_occupied, sha256, write_folder
from .grids import Grids, numbers_of, read, read_labels
from .processes import say
from .randomness import hash64, uniform
from .run_dir import RunDir, write_start

SEED = 0  # of the split
PART = 65_536  # maps that are looked at together
MOST_CLASSES = 100_000  # each has a vector in the prior: labels beyond are numbers of something else


def import_codes(file: Path, settings: ImportCodes) -> RunDir:
    """Make a run of the codes in a file; the run is there whole, or not at all.

    Raises:
        UserError: it cannot be read, holds something else, or does not fit what the settings say; or there is
            a run already.
    """
    run = RunDir(Path(settings.out))
    refuse_occupied(run.path)
    grids = with_labels(read(file, settings), settings)
    K = number_of_codes(grids, settings, file)
    in_file = 1 if grids.codes_per_position is None else grids.codes_per_position
    level = Level(K, *grids.codes.shape[1:], settings.codes_per_position or in_file)
    if level.codes_per_position < 1 or level.width % level.codes_per_position:
        raise UserError(
            f"codes_per_position is {level.codes_per_position}, and the maps are {level.width} codes wide: "
            "it must divide them"
        )
    rows, config, digest = split_rows(grids, settings), config_of(level, settings, file), sha256(file)
    header = Header(
        levels=[level],
        vqvae=digest,  # there is none: the codes are bound to their file
        weights="imported",
        precision="no",
        data=config.data.binding() | {"file": file.name},
        data_fingerprint=digest,
        label_names=list(grids.label_names),
        sizes={name: len(rows[name]) for name in SPLITS},
    )

    def fill(folder: Path) -> None:
        _write_codes(RunDir(folder).codes, header, grids, rows)
        write_start(RunDir(folder), config)

    write_folder(run.path, fill)
    counts = ", ".join(f"{len(rows[name]):,} {name}" for name in SPLITS)
    classes = f", {len(grids.label_names)} classes" if grids.label_names else ""
    say(f"import-codes: {len(grids.codes):,} maps of {level}{classes}; {counts}, in {run.path}")
    return run


def _write_codes(folder: Path, header: Header, grids: Grids, rows: dict[str, np.ndarray]) -> None:
    """Write code maps."""
    folder.mkdir()
    for split, begin, size in code_maps.shard_starts(header):
        at = rows[split][begin : begin + size]
        codes = torch.from_numpy(np.asarray(grids.codes[at]).astype(np.int64))
        labels = None if grids.labels is None else torch.from_numpy(grids.labels[at])
        names = [str(index) if grids.names is None else grids.names[index] for index in at]
        code_maps.write_shard(folder, header, split, begin, (codes,), labels, names)
    code_maps.finish(folder, header)


def config_of(level: Level, settings: ImportCodes, file: Path) -> Config:
    """The settings of the run: those of the defaults, with what the codes say."""
    config = Config()
    factor = config.stage1.factor
    data = replace(
        config.data,
        source="codes",
        root=str(file.resolve()),
        size=(level.height * factor, level.width // level.codes_per_position * factor),
        decoder=settings.decoder,
    )
    stage1 = replace(config.stage1, K=level.K, codes_per_position=level.codes_per_position)
    return replace(config, data=data, stage1=stage1, out=settings.out)


def with_labels(grids: Grids, settings: ImportCodes) -> Grids:
    """The grids with labels from a file of their own, where one is given; the names of classes stay where
    they are of no other labels. All that is said of maps is checked against their number. Raises as
    `import_codes`."""
    if settings.labels:
        labels = numbers_of(read_labels(Path(settings.labels)), Path(settings.labels))
        names = grids.label_names if grids.labels is None else ()
        grids = replace(grids, labels=labels, label_names=names)
    count = len(grids.codes)
    for what, listed in (("labels", grids.labels), ("names", grids.names), ("split", grids.split)):
        if listed is not None and len(listed) != count:
            raise UserError(f"there are {count:,} maps and {len(listed):,} {what}; each map takes one")
    if grids.labels is None:
        return replace(grids, label_names=())
    low, high = int(grids.labels.min()), int(grids.labels.max())
    if high >= MOST_CLASSES:
        raise UserError(
            f"the labels are from {low} to {high}; they are numbers of classes, from 0 on and below "
            f"{MOST_CLASSES:,}: count the classes anew, as numpy.unique(labels, return_inverse=True) does"
        )
    names = grids.label_names or tuple(map(str, range(high + 1)))
    if low < 0 or high >= len(names):
        raise UserError(f"the labels are from {low} to {high}; there are {len(names)} classes, from 0 on")
    if len(names) > MOST_CLASSES:
        raise UserError(f"there are {len(names):,} label_names; there are at most {MOST_CLASSES:,} classes")
    return replace(grids, labels=grids.labels.astype(np.int64), label_names=names)


def parts_of(codes: np.ndarray) -> Iterator[np.ndarray]:
    """The codes, some maps at a time."""
    return (codes[begin : begin + PART] for begin in range(0, len(codes), PART))


def number_of_codes(grids: Grids, settings: ImportCodes, file: Path) -> int:
    """K, as it is given or as the codes say, which is then told; raises as `import_codes`."""
    low = min(int(part.min()) for part in parts_of(grids.codes))
    high = max(int(part.max()) for part in parts_of(grids.codes))
    if low < 0:
        raise UserError(f"the codes of {file} are from {low} to {high}; they are from 0 on")
    K = grids.K if settings.K is None else settings.K
    if K is None:
        K = high + 1
        say(f"import-codes: the largest code is {high}, so there are taken to be {K}; else say it: --K")
    if not 2 <= K <= 65536:
        raise UserError(f"the codes of {file} are from {low} to {high}, and K is {K}; it is from 2 to 65536")
    if high >= K:
        raise UserError(
            f"the codes of {file} are from {low} to {high}; with K {K} they are from 0 to {K - 1}"
        )
    return K


def split_rows(grids: Grids, settings: ImportCodes) -> dict[str, np.ndarray]:
    """Which maps are in each split: as the file says, else by chance; raises as `import_codes`."""
    count = len(grids.codes)
    if grids.split is not None:
        words = np.array(grids.split)
        unknown = sorted({*grids.split} - {*SPLITS})
        if unknown:
            raise UserError(f"split has {', '.join(unknown[:5])}; it takes {', '.join(SPLITS)}")
        rows = {name: np.flatnonzero(words == name) for name in SPLITS}
    else:
        chance = uniform(hash64(SEED, torch.arange(count))).numpy()
        held_out = settings.test + settings.validation
        in_test, in_validation = chance < settings.test, (chance >= settings.test) & (chance < held_out)
        rows = {
            "train": np.flatnonzero(chance >= held_out),
            "validation": np.flatnonzero(in_validation),
            "test": np.flatnonzero(in_test),
        }
    if empty := [name for name in SPLITS if not len(rows[name])]:
        raise UserError(
            f"of {count:,} maps none is in the split {' and '.join(empty)}: give more of them, larger shares "
            "(--validation 0.2 --test 0.2), or a column `split`"
        )
    return {name: rows[name] for name in SPLITS}
