"""Stage one: the VQ-VAE, its quantizers, and the terms of its loss."""

from dataclasses import dataclass, fields, is_dataclass
from math import prod
from operator import attrgetter
from typing import Literal, get_args

from .training import Training

Likelihood = Literal["mse", "l1", "categorical", "logistic"]
Quantizer = Literal["ema", "gradient", "simvq", "fsq", "lfq"]
Gradient = Literal["straight_through", "rotation"]
Trained = Literal["all", "decoder"]
FeaturesOf = Literal["classifier", "lpips"]
MOST_LEVELS = 4  # of codes
LEAST_OF_ADVERSARY = 8  # pixels of a side that its layers leave something of


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
        if not self.entropy >= 0:  # nan neither
            raise ValueError(f"stage1.lfq.entropy is {self.entropy}; it must not be negative")
        if not self.temperature > 0:
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
    """Share of the steps after which the decoder hears it; it learns from the first step on. Where the
    steps are raised, a share of all of them."""
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
        if not self.learning_rate > 0:
            raise ValueError(f"stage1.adversary.learning_rate is {self.learning_rate}; it must be above 0")
        if not self.lecam >= 0:
            raise ValueError(f"stage1.adversary.lecam is {self.lecam}; it must not be negative")


WEIGHTS = {"features": "perceptual", "adversary": "adversarial"}
"""Sections of stage one, and the weight of the term of the loss that each is of."""


@dataclass(frozen=True)
class Stage1(Training):
    """The VQ-VAE (arXiv 1711.00937) and its training."""

    SECTION = "stage1"

    steps: int = 20_000
    """Optimizer steps; the learning rate reaches zero at the last one. 0 takes over what stage1.init has."""
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
        if not self.beta >= 0:
            raise ValueError(f"stage1.beta is {self.beta}; it must not be negative")
        for name in ("perceptual", "adversarial"):
            if not getattr(self, name) >= 0:
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
        # They may be those of the run that is taken over, where nobody typed them
        off = {"train": "all", "perceptual": 0, "adversarial": 0}
        on = {name: value for name, value in off.items() if getattr(self, name) != value}
        if self.steps == 0 and on:
            flags = " ".join(f"--stage1.{name} {value}" for name, value in on.items())
            raise ValueError(
                f"stage1.steps is 0, which takes stage one over as it is, and trains nothing: type {flags}, "
                "or give some --stage1.steps"
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


OWN = {kind: own for kind in get_args(Quantizer) if is_dataclass(own := getattr(Stage1, kind, None))}
KINDS_WITH: dict[str, tuple[Quantizer, ...]] = {
    "beta": ("ema", "gradient", "simvq", "lfq"),
    "gradient": ("ema", "gradient", "simvq"),
    **{f"codebook.{field.name}": ("ema", "gradient") for field in fields(Codebook)},
    **{f"{kind}.{field.name}": (kind,) for kind, own in OWN.items() for field in fields(own)},
}
"""Settings of stage one that not all quantizers heed, and those that do; those under a kind's name are its
own."""
