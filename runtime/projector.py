"""A codebook as TensorBoard's projector reads it: vectors, what is said of each, and a thumbnail of each."""

import json
import math
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from .files import write_file
from .pictures import save_png


def write_codebook(
    run: Path,
    name: str,
    columns: dict[str, Tensor],
    vectors: Tensor,
    thumbnails: Tensor,
) -> None:
    """Write RUN/NAME/ and name all such folders in RUN/projector_config.pbtxt; see `Tracker.codebook`."""
    folder = run / name
    folder.mkdir(exist_ok=True)
    numbers = [[f"{number:.6g}" for number in vector] for vector in vectors.tolist()]
    said = [[str(value) for value in row] for row in torch.stack([*columns.values()], 1).tolist()]
    write_file(folder / "vectors.tsv", _table(numbers))
    write_file(folder / "codes.tsv", _table([[*columns], *said]))
    save_png(folder / "thumbnails.png", _sprite(thumbnails))
    written = sorted(path.parent.name for path in run.glob("codebook*/thumbnails.png"))
    size = thumbnails.shape[-1]  # the same of all levels
    write_file(run / "projector_config.pbtxt", "".join(_entry(each, size) for each in written))


def _table(rows: list[list[str]]) -> str:
    return "".join("\t".join(row) + "\n" for row in rows)


def _entry(name: str, size: int) -> str:
    """How the projector is told of a codebook with thumbnails of so many pixels."""
    files = ("vectors.tsv", "codes.tsv", "thumbnails.png")
    tensors, said, sprite = (json.dumps(f"{name}/{file}") for file in files)
    return (
        f"embeddings {{ tensor_name: {json.dumps(name)} tensor_path: {tensors} metadata_path: {said} "
        f"sprite {{ image_path: {sprite} single_image_dim: {size} single_image_dim: {size} }} }}\n"
    )


def _sprite(thumbnails: Tensor) -> Tensor:
    """Thumbnails [n, C, s, s] in a square of as many rows as columns, as the projector wants them: [H, W, 3]
    uint8."""
    side = math.ceil(math.sqrt(len(thumbnails)))
    cells = torch.zeros(side * side, 3, *thumbnails.shape[2:], dtype=torch.uint8)
    cells[: len(thumbnails)] = thumbnails
    return rearrange(cells, "(rows columns) c h w -> (rows h) (columns w) c", rows=side)
