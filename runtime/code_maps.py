"""Code maps on disk: the contract between the two stages.

    codes/
        header.json                    what the codes are and where they came from (see `Header`)
        train-00000.codes.npy          [n, h, w], uint8 for up to 256 codes, else uint16; mapped when read
        train-00000.codes1.npy         of the next finer level, where there are several, and so on
        train-00000.labels.npy         [n] int64, where there are classes
        train-00000.names.json         [n] names of the pictures; a copy has the name of its picture
        ...

A shard is written whole, and the header last: without it there are no code maps.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from reprlib import repr as shortly
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor

from vqprior.configs.errors import UserError, command_line
from vqprior.configs.schema import Data

from .arrays import NOT_READ, load
from .codes import Codes, Level
from .files import sha256, write_array, write_file, write_json
from .run_dir import RunDir, is_run_dir
from .transfer import onto

FORMAT = 2  # of several levels; of one it is 1
SHARD = 4096  # images of a shard: small enough to share out, large enough that ImageNet is 313 of them


@dataclass(frozen=True)
class Header:
    """What binds code maps to their origin."""

    levels: list[Level]  # coarsest first
    vqvae: str  # fingerprint of the stage-one weights that encoded them
    weights: str  # which weights these were: `model` (raw) or `average`
    precision: str  # autocast of the encoder
    data: dict[str, Any]  # the Data section of the configuration: source, size, crop, ...
    data_fingerprint: str
    label_names: list[str]  # empty without classes
    sizes: dict[str, int]  # images of each split
    format: int = 1
    files: dict[str, str] = field(default_factory=dict)  # name -> sha256, complete once all is written
    fp32_precision: str = ""  # of the encoder's convolutions, `ieee` or `tf32`; imported codes have none

    def origin(self) -> dict[str, Any]:
        """What a prior is bound to: all but the files, and what fp32 was, which the priors in `models` do not
        say."""
        return {
            name: value for name, value in asdict(self).items() if name not in ("files", "fp32_precision")
        }


def shard_starts(header: Header) -> list[tuple[str, int, int]]:
    """All shards in order: (split, index of its first image, images)."""
    return [
        (split, start, min(SHARD, size - start))
        for split, size in header.sizes.items()
        for start in range(0, size, SHARD)
    ]


def _kind_of(level: int) -> str:
    """The kind of the files that hold the codes of a level."""
    return f"codes{level}" if level else "codes"


def _shard_file(folder: Path, split: str, start: int, kind: str) -> Path:
    ending = "json" if kind == "names" else "npy"
    return folder / f"{split}-{start // SHARD:05d}.{kind}.{ending}"


def write_shard(
    folder: Path,
    header: Header,
    split: str,
    start: int,
    codes: Codes,
    labels: Tensor | None,
    names: Sequence[str],
) -> None:
    """Write the codes, labels [n] and names [n] of images `start` to `start + n` of a split."""
    write_file(_shard_file(folder, split, start, "names"), json.dumps(list(names)))
    if labels is not None:
        write_array(_shard_file(folder, split, start, "labels"), labels.numpy().astype(np.int64))
    for index, (level, of_level) in enumerate(zip(header.levels, codes, strict=True)):
        array = of_level.cpu().numpy().astype(level.dtype)
        write_array(_shard_file(folder, split, start, _kind_of(index)), array)


def has_shard(folder: Path, header: Header, split: str, start: int) -> bool:
    """Whether a shard is there, with its names; its codes are written last."""
    kinds = ("names", *map(_kind_of, range(len(header.levels))))
    return all(_shard_file(folder, split, start, kind).is_file() for kind in kinds)


def finish(folder: Path, header: Header) -> None:
    """Write the header, with the checksums of all shards: from now on the code maps can be read."""
    names = sorted(path.name for pattern in ("*.npy", "*.names.json") for path in folder.glob(pattern))
    write_json(
        folder / "header.json", asdict(header) | {"files": {name: sha256(folder / name) for name in names}}
    )


def read_header(folder: Path) -> Header | None:
    """The header of finished code maps, None where there are none.

    Raises:
        UserError: it is damaged or of a newer format.
    """
    path = folder / "header.json"
    if not path.is_file():
        return None
    try:
        tree = json.loads(path.read_text())
        if tree["format"] > FORMAT:
            raise UserError(
                f"{path} has format {tree['format']}, this version reads up to {FORMAT}: upgrade vqprior"
            )
        tree["levels"] = [Level(**level) for level in tree["levels"]]
        header = Header(**{f.name: tree[f.name] for f in fields(Header)})
        for name, kind in get_type_hints(Header).items():
            if not _is_of(getattr(header, name), kind):
                raise TypeError(f"{name} is {shortly(getattr(header, name))}")
        return header
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); {_anew(folder)}") from error


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value is of a type with all that it holds, as `list[Level]`: JSON takes anything."""
    if kind is Any:
        return True
    whole, inner = get_origin(kind) or kind, get_args(kind)
    if type(value) is not whole:
        return False
    if inner:
        return all(_is_of(each, inner[-1]) for each in (value.values() if whole is dict else value))
    return all(_is_of(getattr(value, name), of) for name, of in get_type_hints(kind).items())


class CodeMaps:
    """Finished code maps; arrays are memory-mapped.

    Args:
        folder: that `encode` wrote.
        verify: compare the checksums of all shards.

    Raises:
        UserError: there are none, or they are damaged.
    """

    def __init__(self, folder: Path | str, *, verify: bool = True):
        folder = Path(folder)
        header = read_header(folder)
        if header is None:
            raise UserError(f"there are no code maps in {folder}; make them: {to_make(folder)}")
        self.folder, self.header = folder, header
        for name, digest in header.files.items() if verify else ():
            if not (folder / name).is_file() or sha256(folder / name) != digest:
                raise UserError(f"{folder / name} is missing or damaged; {_anew(folder)}")

    def split(self, name: str) -> "CodeSplit":
        """The codes of one split.

        Raises:
            UserError: a file is missing or not one of these numbers; nothing in it is ever executed.
        """
        shards = [(start, size) for split, start, size in shard_starts(self.header) if split == name]

        def arrays(kind: str, *of_one: int) -> Iterator[np.ndarray]:
            for start, size in shards:
                file = _shard_file(self.folder, name, start, kind)
                try:
                    array = load(file, mmap_mode="r")
                    if array.shape != (size, *of_one) or array.dtype.kind not in "iu":
                        raise ValueError(f"it holds {array.dtype} {list(array.shape)}")
                except NOT_READ as error:
                    why = f"{file} is missing or damaged ({error}); {_anew(self.folder)}"
                    raise UserError(why) from error
                yield array

        labels = np.concatenate([*arrays("labels")]) if self.header.label_names else None
        named = [_shard_file(self.folder, name, start, "names") for start, _ in shards]
        levels = enumerate(self.header.levels)
        return CodeSplit(
            [*zip(*(arrays(_kind_of(level), *of_level.size) for level, of_level in levels), strict=True)],
            None if labels is None else torch.from_numpy(labels),
            named,
        )


@dataclass(frozen=True)
class CodeSplit:
    """Code maps of one split."""

    shards: list[tuple[np.ndarray, ...]]  # for each level [n, h, w], memory-mapped
    labels: Tensor | None  # [N] int64
    named: Sequence[Path] = ()  # for each shard the file of its names

    def __len__(self) -> int:
        return sum(len(shard[0]) for shard in self.shards)

    @property
    def size(self) -> int:
        """Bytes of all code maps."""
        return sum(array.nbytes for shard in self.shards for array in shard)

    def down_to(self, level: int) -> "CodeSplit":
        """The same images, with the levels from the coarsest down to this one alone."""
        return replace(self, shards=[shard[: level + 1] for shard in self.shards])

    def held_on(self, device: torch.device) -> "HeldCodes":
        """All code maps, on a device."""
        return HeldCodes(tuple(_held(arrays, device) for arrays in self._levels()))

    def codes(self, indices: Tensor | np.ndarray | Sequence[int]) -> Codes:
        """The codes of the images with these indices [n].

        Raises:
            UserError: they are no whole numbers.
        """
        shards, rows = _located(indices)
        return tuple(_gathered(arrays, shards, rows) for arrays in self._levels())

    def _levels(self) -> Iterator[tuple[np.ndarray, ...]]:
        """For each level its maps of all shards."""
        return zip(*self.shards, strict=True)

    def names(self, indices: Tensor | np.ndarray | Sequence[int]) -> list[str]:
        """The names of the pictures with these indices [n].

        Raises:
            UserError: a file of names is missing or damaged, or the indices are no whole numbers.
        """
        shards, rows = _located(indices)
        count = {shard: len(self.shards[shard][0]) for shard in np.unique(shards)}
        read = {shard: _read_names(self.named[shard], maps) for shard, maps in count.items()}
        return [read[shard][row] for shard, row in zip(shards, rows, strict=True)]


@dataclass(frozen=True)
class HeldCodes:
    """Code maps of one split on a device."""

    maps: Codes  # a level [N, h, w] uint8, or int16 with the bits of uint16, which torch cannot index

    def codes(self, indices: Tensor) -> Codes:
        """The codes of the images with these indices [n] on the CPU, where the maps are."""
        at = onto(indices, self.maps[0].device)
        return tuple(of_level.index_select(0, at).long() & 0xFFFF for of_level in self.maps)


def _held(shards: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """The maps [N, h, w] of one level on a device, as `HeldCodes` has them."""
    dtype = torch.uint8 if shards[0].dtype == np.uint8 else torch.int16
    maps = torch.empty(sum(map(len, shards)), *shards[0].shape[1:], dtype=dtype, device=device)
    start = 0
    for shard in shards:  # not by way of pinned memory, which torch would keep
        codes = np.array(shard)
        bits = codes.view(np.int16) if codes.itemsize == 2 else codes
        maps[start : start + len(shard)] = torch.from_numpy(bits)
        start += len(shard)
    return maps


def _located(indices: Tensor | np.ndarray | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The shards [n] and the rows in them [n] of images; raises as `CodeSplit.codes`."""
    at = np.asarray(indices)
    if at.size and at.dtype.kind not in "iu":  # a mask would be taken for the images 0 and 1
        hint = "; of a mask, numpy.flatnonzero gives them" if at.dtype.kind == "b" else ""
        raise UserError(f"indices are {at.dtype}; they are whole numbers{hint}")
    return np.divmod(at, SHARD)


def _gathered(maps: Sequence[np.ndarray], shards: np.ndarray, rows: np.ndarray) -> Tensor:
    """Maps [n, h, w] int64 of one level, from these rows [n] of these shards [n]."""
    out = np.empty((len(rows), *maps[0].shape[1:]), dtype=np.int64)
    for shard in np.unique(shards):
        out[shards == shard] = maps[shard][rows[shards == shard]]
    return torch.from_numpy(out)


def _read_names(file: Path, count: int) -> list[str]:
    try:
        names = json.loads(file.read_text())
        if not isinstance(names, list) or len(names) != count or not all(type(name) is str for name in names):
            raise ValueError(f"expected a list of {count} names")
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is damaged ({error}); {_anew(file.parent)}") from error
    return names


def _anew(folder: Path) -> str:
    """How damaged code maps are made anew, in words."""
    return f"delete {folder} and make it again: {to_make(folder)}"


def to_make(folder: Path) -> str:
    """What to type for the code maps of a folder; where the pictures or the codes are must be said if they
    are no longer where the run had them, as for an export."""
    run = RunDir(folder.parent)
    data = run.config().data if is_run_dir(run.path) else Data()
    if data.source != "codes":
        moved = is_run_dir(run.path) and are_elsewhere(data)
        return command_line("encode", run.path, *(["--data.root", "PHOTOS"] if moved else []))
    file, beside = Path(data.root), Path(f"{run.path}-again")
    command = command_line("import-codes", file if file.is_file() else "CODES", "--out", beside)
    return f"{command}, with the other flags of then, and move {beside / folder.name} there"


def are_elsewhere(data: Data) -> bool:
    """Whether the pictures of a run are no longer where it had them, as for an export on another machine."""
    return data.source == "folder" and not data.train_root and not Path(data.root).is_dir()
