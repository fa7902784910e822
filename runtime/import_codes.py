"""Code maps of others -> a run whose prior can be trained: integer grids of a tokenizer, of sound, of pixels.

FILE.npy        integers [N, h, w] or [N, n] (a row of n is a map of 1 x n); memory-mapped, however large
FILE.npz        the same under `codes`, or as the only array of whole numbers with 2 or 3 axes; besides, where
                there are any: labels [N] (integers), label_names [C] (text), names [N] (text), split [N]
                (text: train, validation or test), K, codes_per_position
FILE.parquet    a row a map: `codes`, a list of numbers (flat, or of rows); besides, where there are any:
                label, name, split; height, width, K, codes_per_position and label_names in the metadata of
                the file, as JSON, as `vqprior encode` has them

Text may be bytes in UTF-8, in .npz and in columns. What is of another kind than this is refused in words.
What `vqprior encode RUN --pictures FOLDER` writes can be imported as it is.
"""

import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from reprlib import repr as shortly
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, Literal
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.lib.npyio import NpzFile

from vqprior.configs import Config
from vqprior.configs.commands import ImportCodes
from vqprior.configs.errors import UserError

from . import code_maps
from .code_maps import Header
from .codes import Level
from .data.source import SPLITS
from .files import sha256, write_folder
from .processes import say
from .randomness import hash64, uniform
from .run_dir import RunDir, write_start

if TYPE_CHECKING:
    import pyarrow

SEED = 0  # of the split
PART = 65_536  # maps that are looked at together
MOST_CLASSES = 100_000  # each has a vector in the prior: labels beyond are numbers of something else
ABOUT = ("height", "width", "heights", "widths", "K", "codes_per_position", "label_names")  # in metadata
# what numpy, zipfile and pyarrow raise where a file is damaged, or of another kind
NOT_READ = (ValueError, OSError, LookupError, EOFError, MemoryError, RuntimeError, ArithmeticError)
NOT_READ += (BadZipFile, zlib.error)


@dataclass
class Grids:
    """What a file holds."""

    codes: np.ndarray  # [N, h, w] whole numbers, memory-mapped where the file allows it
    labels: np.ndarray | None = None  # [N] whole numbers
    label_names: tuple[str, ...] = ()
    names: list[str] | None = None
    split: list[str] | None = None  # of each map: train, validation or test
    K: int | None = None
    codes_per_position: int | None = None


def import_codes(file: Path, settings: ImportCodes) -> RunDir:
    """Make a run of the codes in a file; the run is there whole, or not at all.

    Raises:
        UserError: it cannot be read, holds something else, or does not fit what the settings say; or there is
            a run already.
    """
    run = RunDir(Path(settings.out))
    _refuse_occupied(run.path)
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


def _refuse_occupied(path: Path) -> None:
    """Refuse, with a UserError, a path where there is something."""
    if path.is_dir() and any(path.iterdir()):
        raise UserError(f"{path} is not empty; give another folder with --out")
    if path.resolve() == Path.cwd():
        raise UserError(f"--out is the current folder; give one of its own, such as --out {path / 'mine'}")
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; give a folder with --out")


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


def read(file: Path, settings: ImportCodes) -> Grids:
    """What a file holds, checked but for the range of the codes; raises as `import_codes`."""
    readers = {".npy": _of_npy, ".npz": _of_npz, ".parquet": _of_parquet}
    if not file.is_file():
        raise UserError(f"there is no file {file}; give codes as .npy, .npz or .parquet")
    if file.suffix not in readers:
        raise UserError(f"{file} is none of {', '.join(readers)}; save the codes with numpy.save")
    try:
        grids = readers[file.suffix](file, settings)
    except NOT_READ as error:
        raise UserError(f"{file} cannot be read as codes: {error}") from error
    codes = grids.codes
    if codes.dtype.kind not in "iu" or codes.ndim not in (2, 3) or not codes.size:
        hint = "; numbers with a point are no codes: save them as integers" if codes.dtype.kind == "f" else ""
        found = f"{codes.dtype} {list(codes.shape)}"
        raise UserError(f"{file} holds {found}; codes are integers [N, h, w] or [N, n]{hint}")
    return replace(grids, codes=codes[:, None] if codes.ndim == 2 else codes)


def _of_npy(file: Path, settings: ImportCodes) -> Grids:
    return Grids(_load(file, mmap_mode="r"))


def _load(file: Path, mmap_mode: Literal["r"] | None = None) -> Any:
    """The array of an .npy, or the arrays of an .npz by name.

    Raises:
        ValueError: it is the one and is called the other. Of a damaged file, any of `NOT_READ`.
    """
    try:
        found = np.load(file, mmap_mode=mmap_mode, allow_pickle=False)
    except (TokenError, TypeError) as error:  # numpy's own, of a header that is no Python
        raise ValueError(f"its header is damaged: {error}") from error
    if isinstance(found, NpzFile) and file.suffix == ".npy":
        found.close()
        raise ValueError(f"it is an archive, as numpy.savez writes; call it {file.with_suffix('.npz').name}")
    if not isinstance(found, NpzFile) and file.suffix == ".npz":
        raise ValueError(f"it is one array, as numpy.save writes; call it {file.with_suffix('.npy').name}")
    return found


def _of_npz(file: Path, settings: ImportCodes) -> Grids:
    with _load(file) as arrays:
        key = settings.key or ("codes" if "codes" in arrays else _only_grid(arrays, file))
        if key not in arrays:
            raise UserError(f"{file} has no array {key!r}; it has {', '.join(arrays)}")
        return Grids(
            np.asarray(arrays[key]),
            _numbers(arrays.get("labels"), file),
            tuple(_texts(arrays.get("label_names"), "label_names", file) or ()),
            _texts(arrays.get("names"), "names", file),
            _texts(arrays.get("split"), "split", file),
            _whole(arrays.get("K"), "K", file),
            _whole(arrays.get("codes_per_position"), "codes_per_position", file),
        )


def _only_grid(arrays: Any, file: Path) -> str:
    """The one array that can be codes."""
    kinds = {name: np.asarray(arrays[name]) for name in arrays}  # an archive may hold files of other kinds
    grids = [name for name, array in kinds.items() if array.dtype.kind in "iu" and array.ndim in (2, 3)]
    if len(grids) != 1:
        found = f"{file} has {len(grids)} arrays that could be codes, of {', '.join(arrays)}"
        raise UserError(f"{found}; say which: --key NAME")
    return grids[0]


def _of_parquet(file: Path, settings: ImportCodes) -> Grids:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UserError("Parquet files need pyarrow: pip install 'vqprior[data]'") from error
    try:
        return _of_table(pq.read_table(file), settings.key or "codes", file)
    except pa.ArrowException as error:  # not each is a ValueError
        raise ValueError(str(error)) from error


def _of_table(table: "pyarrow.Table", key: str, file: Path) -> Grids:
    if key not in table.column_names:
        raise UserError(f"{file} has no column {key!r}; it has {', '.join(table.column_names)}: --key COLUMN")
    about = _about(table.schema.metadata or {}, file)
    return Grids(
        _as_maps(_array_of(table[key]), _map_size(key, about, file), file),
        _numbers(_column(table, "label", file), file),
        tuple(_texts(about.get("label_names"), "label_names", file) or ()),
        _texts(_column(table, "name", file), "name", file),
        _texts(_column(table, "split", file), "split", file),
        _whole(about.get("K"), "K", file),
        _whole(about.get("codes_per_position"), "codes_per_position", file),
    )


def _about(metadata: dict[bytes, bytes], file: Path) -> dict[str, Any]:
    """What the metadata of a file say of its codes; null is nothing said."""
    about = {}
    for name in ABOUT:
        try:
            about[name] = json.loads(metadata.get(name.encode(), b"null"))
        except (ValueError, RecursionError) as error:
            found = shortly(metadata[name.encode()].decode(errors="replace"))
            raise UserError(
                f"the metadata of {file} have {name} {found}, which is no JSON; write it with json.dumps"
            ) from error
    return {name: value for name, value in about.items() if value is not None}


def _column(table: "pyarrow.Table", name: str, file: Path) -> np.ndarray | None:
    """A column with a value for each map, where there is such a column."""
    if name not in table.column_names:
        return None
    if missing := table[name].null_count:
        raise UserError(f"the column {name!r} of {file} lacks {missing:,} values; each map takes one")
    return table[name].to_numpy()


def _map_size(key: str, about: dict[str, Any], file: Path) -> tuple[int, int] | None:
    """Height and width of the maps of a column, where the file says them: of one level, or of codes0, codes1,
    ... those of each."""
    if {"height", "width"} <= about.keys():
        size = about["height"], about["width"]
    elif {"heights", "widths"} <= about.keys() and (number := key.removeprefix("codes")).isdecimal():
        size = tuple(_of_level(about[name], int(number), name, file) for name in ("heights", "widths"))
    else:
        return None
    if not all(type(side) is int and side > 0 for side in size):
        found = " x ".join(map(shortly, size))
        raise UserError(f"the metadata of {file} say that maps are {found}; both are whole numbers from 1 on")
    return size


def _of_level(sides: Any, number: int, name: str, file: Path) -> Any:
    if not isinstance(sides, list) or number >= len(sides):
        raise UserError(f"the metadata of {file} have {name} {shortly(sides)}, without one for codes{number}")
    return sides[number]


def _as_maps(codes: np.ndarray, size: tuple[int, int] | None, file: Path) -> np.ndarray:
    """Rows of codes [N, ...] as maps of a size, a row a map."""
    if size is None or codes.ndim not in (2, 3):
        return codes
    same = codes.shape[1] == math.prod(size) if codes.ndim == 2 else codes.shape[1:] == size
    if not same:
        found = " x ".join(map(str, codes.shape[1:]))
        raise UserError(
            f"{file} takes a row a map, but its rows have {found} codes and its metadata say "
            f"{size[0]} x {size[1]}; write `height` and `width` anew, or save the codes with numpy.save"
        )
    return codes.reshape(-1, *size)


def _array_of(column: "pyarrow.ChunkedArray") -> np.ndarray:
    """A column of lists, or of lists of lists, as one array, without a Python object for each number.

    Raises:
        ValueError: the lists are of several lengths, or something is missing in them.
    """
    parts = [_part_of(chunk) for chunk in column.chunks if len(chunk)]
    sizes = sorted({part.shape[1:] for part in parts})
    if len(sizes) > 1:
        raise ValueError(f"its lists are of several lengths, such as {[*sizes[0]]} and {[*sizes[-1]]}")
    return np.concatenate(parts) if parts else np.empty(0)


def _part_of(array: "pyarrow.Array") -> np.ndarray:
    """A part of a column; raises as `_array_of`."""
    import pyarrow as pa

    sizes = [len(array)]
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    while any(is_kind(array.type) for is_kind in lists) and not array.null_count:
        lengths = np.unique(array.value_lengths().to_numpy(zero_copy_only=False))
        if len(lengths) > 1:
            raise ValueError(f"its lists are of several lengths, such as {lengths[0]} and {lengths[-1]}")
        sizes.append(int(lengths[0]))
        array = array.flatten()
    if array.null_count:
        raise ValueError(f"{array.null_count:,} values are missing")
    return array.to_numpy(zero_copy_only=False).reshape(sizes)


def _numbers(labels: Any, file: Path) -> np.ndarray | None:
    """Labels as whole numbers, where there are any."""
    if labels is None:
        return None
    array = np.asarray(labels)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        found = f"{array.dtype} {list(array.shape)}, beginning with {shortly(array.ravel()[:3].tolist())}"
        raise UserError(f"the labels of {file} are {found}; they are integers [N]")
    return array


def _texts(values: Any, what: str, file: Path) -> list[str] | None:
    """A list or an array [N] of text, where there is one; bytes are taken as UTF-8."""
    if values is None:
        return None
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(listed, list):
        raise UserError(f"{what} of {file} is {shortly(listed)}; it is a list of text, such as ['a', 'b']")
    try:
        texts = [value.decode() if isinstance(value, bytes) else value for value in listed]
    except UnicodeDecodeError as error:
        raise UserError(f"{what} of {file} has {shortly(error.object)}; text in bytes is UTF-8") from error
    if others := [text for text in texts if not isinstance(text, str)]:
        raise UserError(f"{what} of {file} has {shortly(others[0])}; all of it is text, such as ['a', 'b']")
    return texts


def _whole(value: Any, what: str, file: Path) -> int | None:
    """A whole number, where there is one."""
    if value is None:
        return None
    number = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    if type(number) is not int:  # True is none
        raise UserError(f"{what} of {file} is {shortly(number)}; it is a whole number")
    return number


def with_labels(grids: Grids, settings: ImportCodes) -> Grids:
    """The grids with labels from a file of their own, where one is given; all that is said of maps is checked
    against their number. Raises as `import_codes`."""
    if settings.labels:
        labels = read_labels(Path(settings.labels))
        grids = replace(grids, labels=_numbers(labels, Path(settings.labels)), label_names=())
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


def read_labels(file: Path) -> np.ndarray:
    """Labels in a file of their own: .npy, or text with a number a line.

    Raises:
        UserError: it cannot be read.
    """
    if not file.is_file():
        raise UserError(f"there is no file {file}, which --labels names")
    try:
        if file.suffix == ".npy":
            return _load(file)
        return np.array([int(line) for line in file.read_text().split()], dtype=np.int64)
    except NOT_READ as error:
        raise UserError(f"{file}, which --labels names, holds no integers: {error}") from error


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
