"""Settings of single commands, which no run keeps: one docstring a field, which is also its --help."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

from .schema import Config, Drawing, OnError, Precision, refuse_seed

Half = Literal["lower half", "upper half", "left half", "right half"]
Part = Literal["reconstruction", "likelihood", "ladder", "labels", "copies", "verification", "code_copies"]


@dataclass(frozen=True, kw_only=True)
class Complete(Drawing):
    """How the hidden part of a picture is filled in. Of `mask`, `box` and `hide` one says what is hidden."""

    image: str
    """The picture, any size and mode that Pillow reads; it is resized and cropped like those that the run
    learnt from."""
    mask: str | None = None
    """A picture that is white or transparent where the other one is hidden, black where it is known;
    stretched to its size."""
    box: tuple[int, int, int, int] | None = None
    """Hide a box: its TOP row, LEFT column, HEIGHT and WIDTH in pixels of the picture."""
    hide: Half | None = None
    """Hide half of the picture."""
    label: str = ""
    """Class of the completions: a name, or a number as #3 (or 3, where no name is made of digits); without it
    the prior is told none and guidance has no effect."""
    images: int = 6
    """Number of completions, the likeliest first."""
    draws: int = 0
    """Draw this many and keep the `images` whose whole maps are likeliest under the prior; 0 draws just as
    many."""
    batch_size: int = 16
    """Completions drawn at once; other sizes give the same ones, up to ties within rounding."""
    out: str | None = None
    """Folder for the pictures; without it RUN/completions/NAME OF THE PICTURE."""

    def __post_init__(self):
        super().__post_init__()
        given = [f"--{name}" for name in ("mask", "box", "hide") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"{' and '.join(given) or 'nothing'} says what is hidden; give exactly one of --mask "
                "mask.png, --box TOP LEFT HEIGHT WIDTH and --hide 'lower half'"
            )
        if self.box and (min(self.box[:2]) < 0 or min(self.box[2:]) < 1):
            raise ValueError(
                f"box is {self.box}; it takes TOP and LEFT of at least 0, HEIGHT and WIDTH of at least 1 "
                "pixel"
            )
        if self.images < 1:
            raise ValueError(f"images is {self.images}; it must be at least 1")
        if self.draws and self.draws < self.images:
            raise ValueError(
                f"draws is {self.draws}; it must be at least images ({self.images}), or 0 for just as many"
            )

    def folder(self, run: Path) -> Path:
        """Where the pictures go."""
        return Path(self.out) if self.out else run / "completions" / Path(self.image).stem


@dataclass(frozen=True)
class _OfRun(Config):
    """Settings of a run, and those of a command that looks at it."""

    @classmethod
    def of(cls, config: Config, **settings: Any) -> Self:
        """These settings for a run."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(Config)}, **settings)

    def of_run(self) -> Config:
        """The settings of the run alone."""
        return Config(**{field.name: getattr(self, field.name) for field in fields(Config)})


@dataclass(frozen=True)
class TrainPrior(_OfRun):
    """A run whose prior is trained."""

    level: int | None = None
    """Train the prior of this level of codes alone, 0 being the coarsest; without it those of all, one after
    the other."""

    def __post_init__(self):
        super().__post_init__()
        if self.level is not None and not 0 <= self.level < self.stage1.levels:
            last = self.stage1.levels - 1
            raise ValueError(
                f"level is {self.level}; the codes of this run have levels 0 to {last}, 0 being the coarsest"
                if last
                else f"level is {self.level}, and the codes of this run have one level; leave it out"
            )


@dataclass(frozen=True)
class Evaluation(_OfRun):
    """What is measured of a run; `sample.*` says how the samples are drawn that are measured."""

    images: int = 10_000
    """Images in each row of the distances, and that each classifier learns from; at most as many as the test
    split has, and the training split."""
    only: tuple[Part, ...] = ()
    """Parts to measure; without it all. Figures of the other parts stay as they are, where they are of the
    same weights, data and precision."""
    features: str = "classifier"
    """Features of the distances: `classifier` (trained on the run's own labels), or an extractor of
    torch-fidelity, such as inception-v3-compat, dinov2-vit-s-14, clip-vit-b-32 or vgg16 (pip install
    'vqprior[eval]')."""
    features_weights: str | None = None
    """File with the weights of that extractor; without it torch-fidelity downloads them."""
    classifier_steps: int = 500
    """Training steps of each classifier, on batches of 128."""
    classes: Literal["even", "test"] = "even"
    """The classes that samples are asked for: as many images of each, or those of the real test images, which
    is fair where some classes have far more pictures than others."""
    archives: tuple[str, ...] = ()
    """Samples of other models or settings, to be measured in the same way: files like samples.npz, with
    images (uint8 [N, H, W, C]) and, for the figures that take them, labels."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("images", "classifier_steps"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 2")
        if self.features_weights and self.features == "classifier":
            raise ValueError(
                f"features_weights is {self.features_weights}, and features is `classifier`, which learns "
                "its weights from the data; name the network too, for example --features inception-v3-compat"
            )


@dataclass(frozen=True)
class Check(_OfRun):
    """What is looked at in the data of a run, or of one that is to begin."""

    write: str | None = None
    """A preset to write for these pictures: size, factor, K, batch and steps from their number and size."""
    sheet: str | None = None
    """The contact sheet, a PNG; without it check.png in the run directory."""

    @property
    def sheet_file(self) -> Path:
        """Where the contact sheet goes."""
        return Path(self.sheet) if self.sheet else Path(self.out) / "check.png"


@dataclass(frozen=True)
class Report(_OfRun):
    """What goes into a report; its samples are drawn as `sample.*` says."""

    file: str | None = None
    """The page to write; without it RUN/report.html."""

    def page(self, run: Path) -> Path:
        """Where the page goes."""
        return Path(self.file) if self.file else run / "report.html"


@dataclass(frozen=True, kw_only=True)
class OtherPictures:
    """Pictures besides those of a run, and how they are read."""

    pictures: str
    """A folder of pictures, those in its sub-folders among them, or one picture; cut and resized like the
    run's."""
    range: tuple[float, float] | None = None
    """Values that become black and white in pictures of more than 8 bits, LOW HIGH; without it the run's."""
    on_error: OnError | None = None
    """What becomes of a picture that cannot be read: the command stops and names it, or leaves it out and
    lists it in skipped.txt; without it as data.on_error of the run says."""

    def __post_init__(self):
        if self.range and not self.range[0] < self.range[1]:
            raise ValueError(f"range is {self.range}; it takes LOW HIGH, for example 0 4095")


@dataclass(frozen=True, kw_only=True)
class EncodePictures(OtherPictures):
    """Which pictures are encoded besides those of a run, and where their codes go."""

    out: str
    """Folder for codes.npz and codes.parquet (the latter with pip install 'vqprior[data]')."""


@dataclass(frozen=True, kw_only=True)
class Score(OtherPictures):
    """Which pictures are compared with what the prior learnt, and where what is found goes."""

    out: str
    """Folder for scores.csv, scores.npz, unusual.png and a picture of each in pictures/."""
    label: str = ""
    """Class that all pictures are held to be of, and are compared with: a name, or a number as #3 (or 3,
    where no name is made of digits); without it no class is told."""
    quantile: float = 0.9
    """Codes that cost more bits than this share of the validation pictures' at the same place are drawn
    anew."""
    restorations: int = 4
    """How often they are."""
    seed: int = 0
    """Restoration r of a picture is a function of the picture, the checkpoints, this seed and r."""
    batch_size: int = 64
    """Maps drawn at once; other sizes give the same figures, up to rounding."""
    precision: Precision = "no"
    """Autocast of the priors; the VQ-VAE has that of `vqprior encode`."""

    def __post_init__(self):
        super().__post_init__()
        refuse_seed(self.seed)
        if not 0 < self.quantile < 1:
            raise ValueError(f"quantile is {self.quantile}; it is a share between 0 and 1, for example 0.9")
        for name in ("restorations", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class ImportCodes:
    """How integer grids of another tokenizer, or of anything else, become a run whose prior can be
    trained."""

    out: str
    """The run directory."""
    K: int | None = None
    """Number of codes; without it as the file says, else the largest code and one, which is then told."""
    labels: str | None = None
    """File of the labels, integers [N]: .npy, or text with a number a line; else those in the file of the
    codes."""
    key: str | None = None
    """Array in an .npz, or column of Parquet, that holds the codes; `codes` is tried first."""
    codes_per_position: int | None = None
    """Codes of one position, side by side in the map; without it as the file says, else 1."""
    validation: float = 0.05
    """Share of the maps that choose checkpoints, by chance; else as the file's `split` says."""
    test: float = 0.1
    """Share of the maps that figures are reported of."""
    decoder: str | None = None
    """MODULE:FUNCTION of your own that makes pictures, uint8 [N, H, W, C], of codes, int64 [N, h, w]."""

    def __post_init__(self):
        if self.codes_per_position is not None and self.codes_per_position < 1:
            raise ValueError(f"codes_per_position is {self.codes_per_position}; it must be at least 1")
        if not 0 < self.validation < 0.5 or not 0 < self.test < 0.5:
            raise ValueError(
                f"validation is {self.validation} and test is {self.test}; both are shares between 0 and 0.5"
            )

    def onward(self) -> tuple[object, ...]:
        """What to type next."""
        return "train-prior", Path(self.out), "--stage2.steps", 5000


@dataclass(frozen=True)
class App:
    """Where the page is shown."""

    host: str = "127.0.0.1"
    """Address to listen on; as it is, nobody but this machine reaches the page. 0.0.0.0 lets everybody in who
    can reach this machine: there is no password."""
    port: int = 7860
    """Port; 0 takes a free one, which is printed."""

    def __post_init__(self):
        if not 0 <= self.port < 65536:
            raise ValueError(f"port is {self.port}; it is between 0 and 65535")


@dataclass(frozen=True)
class Listing:
    """The runs in a FOLDER (runs without it), and those one folder below, with their state, the steps of each
    stage (of several levels of codes coarse to fine), and the figures of `evaluate`."""


@dataclass(frozen=True)
class Doctor:
    """Versions, devices, what --precision auto takes on them, and which optional packages are missing."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """What is written to be shared."""

    out: str
    """A new folder for the weights that sampling uses; it is a run directory itself, for sample and complete
    (and, with pictures in --data.root, for encode and then evaluate)."""
    half: bool = False
    """Store weights in 16 bits: half the size; the networks still compute in fp32."""
    onnx: bool = False
    """Write the networks as ONNX graphs, too, for runtimes without torch (pip install 'vqprior[onnx]')."""
    license: str = ""
    """Licence of the weights for the model card, in the words of model hubs (apache-2.0, cc-by-4.0, other);
    without it the card says that it is not stated."""
    data: str = ""
    """Which pictures it was trained on, and on what terms, in words for the model card; without it the card
    says that it is not stated."""
