"""Integer grids, and what comes with them, from the files of others.

FILE.npy        integers [N, h, w] or [N, n] (a row of n is a map of 1 x n); memory-mapped, however large
FILE.npz        the same under `codes`, or as the only array of whole numbers with 2 or 3 axes; besides, where
                there are any: labels [N] (integers), label_names [C] (text), names [N] (text), split [N]
                (text: train, validation or test), K, codes_per_position
FILE.parquet    a row a map: `codes`, a list of numbers (flat, or of rows); besides, where there are any:
                label, name, split; height, width, K, codes_per_position and label_names in the metadata of
                the file, as JSON, as `vqprior encode` has them

Text may be bytes in UTF-8 or whole numbers, in .npz and in columns. What is of another kind than this is
refused in words.
"""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from reprlib import repr as shortly
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.npyio import NpzFile

from vqprior.configs.commands import ImportCodes
from vqprior.configs.errors import UserError

from .arrays import NOT_READ, load, member

if TYPE_CHECKING:
    import pyarrow


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
    if settings.key is not None:
        raise UserError(f"{file} is one array, which has no name; leave out --key {settings.key}")
    return Grids(load(file, mmap_mode="r"))


def _of_npz(file: Path, settings: ImportCodes) -> Grids:
    with load(file) as arrays:
        key = settings.key or ("codes" if "codes" in arrays else _only_grid(arrays, file))
        if key not in arrays:
            raise UserError(f"{file} has no array {key!r}; it has {', '.join(arrays)}")
        of = lambda name: member(arrays, name)
        return Grids(
            np.asarray(of(key)),
            numbers_of(of("labels"), file),
            tuple(_texts(of("label_names"), "label_names", file) or ()),
            _texts(of("names"), "names", file),
            _texts(of("split"), "split", file),
            _whole(of("K"), "K", file),
            _whole(of("codes_per_position"), "codes_per_position", file),
        )


def _only_grid(arrays: NpzFile, file: Path) -> str:
    """The one array that can be codes."""
    grids = []
    for name in arrays:
        array = np.asarray(member(arrays, name))  # an archive may hold files of other kinds
        if array.dtype.kind in "iu" and array.ndim in (2, 3):
            grids.append(name)
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
        return _of_table(pq.read_table(file), settings, file)
    except pa.ArrowException as error:  # not each is a ValueError
        raise ValueError(str(error)) from error


def _of_table(table: "pyarrow.Table", settings: ImportCodes, file: Path) -> Grids:
    key = settings.key or "codes"
    if key not in table.column_names:
        raise UserError(f"{file} has no column {key!r}; it has {', '.join(table.column_names)}: --key COLUMN")
    metadata, labels = table.schema.metadata or {}, _column(table, "label", file)
    said, labelled = lambda name: _said(metadata, name, file), labels is not None or settings.labels
    return Grids(
        _as_maps(_array_of(table[key]), _map_size(key, metadata, file), file),
        numbers_of(labels, file),
        tuple(_texts(said("label_names"), "label_names", file) or ()) if labelled else (),
        _texts(_column(table, "name", file), "name", file),
        _texts(_column(table, "split", file), "split", file),
        _whole(said("K"), "K", file),
        _whole(said("codes_per_position"), "codes_per_position", file),
    )


def _said(metadata: dict[bytes, bytes], name: str, file: Path) -> Any:
    """What the metadata of a file say of its codes under a name; None and null are nothing said."""
    try:
        return json.loads(metadata.get(name.encode(), b"null"))
    except (ValueError, RecursionError) as error:
        found = shortly(metadata[name.encode()].decode(errors="replace"))
        raise UserError(
            f"the metadata of {file} have {name} {found}, which is no JSON; write it with json.dumps"
        ) from error


def _column(table: "pyarrow.Table", name: str, file: Path) -> np.ndarray | None:
    """A column with a value for each map, where there is such a column."""
    if name not in table.column_names:
        return None
    if missing := table[name].null_count:
        raise UserError(f"the column {name!r} of {file} lacks {missing:,} values; each map takes one")
    return table[name].to_numpy()


def _map_size(key: str, metadata: dict[bytes, bytes], file: Path) -> tuple[int, int] | None:
    """Height and width of the maps of a column, where the file says them: of one level, or of codes0, codes1,
    ... those of each."""
    size = tuple(_said(metadata, name, file) for name in ("height", "width"))
    number = key.removeprefix("codes")
    if None in size and number.isdecimal():
        sides = {name: _said(metadata, name, file) for name in ("heights", "widths")}
        if None not in sides.values():
            size = tuple(_of_level(sides[name], int(number), name, file) for name in sides)
    if None in size:
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


def numbers_of(labels: Any, file: Path) -> np.ndarray | None:
    """Labels as whole numbers, where there are any."""
    if labels is None:
        return None
    array = np.asarray(labels)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        found = f"{array.dtype} {list(array.shape)}, beginning with {shortly(array.ravel()[:3].tolist())}"
        raise UserError(f"the labels of {file} are {found}; they are integers [N]")
    return array


def _texts(values: Any, what: str, file: Path) -> list[str] | None:
    """A list or an array [N] of text, where there is one; bytes are taken as UTF-8, and whole numbers of an
    array as their digits."""
    if values is None:
        return None
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        values = values.astype(str)
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


def read_labels(file: Path) -> np.ndarray:
    """Labels in a file of their own: .npy, or text with a number a line.

    Raises:
        UserError: it cannot be read.
    """
    if not file.is_file():
        raise UserError(f"there is no file {file}, which --labels names")
    try:
        if file.suffix == ".npy":
            return load(file)
        return np.array([int(line) for line in file.read_text().split()], dtype=np.int64)
    except NOT_READ as error:
        raise UserError(f"{file}, which --labels names, holds no integers: {error}") from error
