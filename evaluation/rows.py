"""Sets of as many images, such as the rows of the ladder: each made once and kept on disk.

RUN/evaluation/
    ROW-DIGEST.npy    the images of a row, uint8 [n, C, H, W]; the digest is of all that they depend on
    PART.json         the figures of a part, and what they depend on
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vqprior.runtime.chunks import Chunk
from vqprior.runtime.kept import Kept
from vqprior.runtime.processes import each_in_turn, on_main

Images = Callable[[Tensor], Tensor]
"""indices [n] int64 -> images uint8 [n, C, H, W]."""


def read_row(path: Path) -> Images:
    """The images of a row on disk."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return lambda indices: torch.from_numpy(array[indices.numpy()])


def keep_row(row: Kept, make: Images, *, count: int, batch: int) -> Images:
    """The images 0 to count-1 that `make` gives, written once; a row of other settings makes room for it.

    Args:
        make: gets `batch` indices at a time, the last repeated if there are fewer; shared out over processes.

    Raises:
        UserError: an image cannot be made or written.
    """
    if on_main(row.path.is_file):
        return read_row(row.path)

    # An empty file, into which each process writes its images
    shape = make(torch.zeros(batch, dtype=torch.int64)).shape[1:]
    data_begins = on_main(_begin, row, (count, *shape))
    size = int(np.prod(shape))

    def write(indices: Tensor) -> None:
        chunk = Chunk.of(indices, batch)
        images = chunk.own(make(chunk.padded))
        with open(row.unfinished, "r+b") as file:
            file.seek(data_begins + int(indices[0]) * size)
            file.write(images.contiguous().numpy().tobytes())
            file.flush()

    each_in_turn(list(torch.arange(count).split(batch)), write, row.name)
    on_main(row.finish)
    return read_row(row.path)


def _begin(row: Kept, shape: tuple[int, ...]) -> int:
    """An .npy file of that shape without its data, and where they begin; makes room for itself."""
    row.make_room()
    with open(row.unfinished, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        begins = file.tell()
        file.truncate(begins + int(np.prod(shape)))
    return begins
