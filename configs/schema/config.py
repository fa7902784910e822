"""All settings of a run together, and what they ask of each other."""

from dataclasses import dataclass, field, replace
from typing import Literal

from .data import Data
from .sample import Sample, refuse_seed
from .stage1 import LEAST_OF_ADVERSARY, Stage1
from .stage2 import Stage2, Stage2Fine
from .training import Precision

Tracker = Literal["tensorboard", "wandb", "mlflow"]


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
        refuse_seed(self.seed)
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
