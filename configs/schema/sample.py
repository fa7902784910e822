"""Drawing from the priors."""

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, get_args

from .training import Precision

Method = Literal["auto", "cached", "parallel", "plain"]

RANGES = {
    "guidance": (0, 1e30, "(1 leaves the prior as it is)"),
    "temperature": (
        1e-30,
        1e30,
        "(1 leaves the prior as it is, and top_k 1 takes the likeliest code everywhere)",
    ),
    "top_p": (1e-30, 1, "(1 keeps all codes)"),
}
"""Least and most, and what some number means: fp32 holds what logits become by them."""


def is_whole(given: Any) -> bool:
    """Whether it is a whole number, of Python or NumPy; True and False are none."""
    return isinstance(given, Integral) and not isinstance(given, bool)


def refuse_seed(given: Any) -> None:
    """Refuse, with a ValueError, a seed that the streams of randomness do not take."""
    if not is_whole(given) or not -(2**63) <= given < 2**63:
        raise ValueError(f"seed is {given!r}; it is a whole number of 64 bits")


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
        refuse_seed(self.seed)
        if self.batch_size != "auto" and not (is_whole(self.batch_size) and self.batch_size > 0):
            raise ValueError(f"batch_size is {self.batch_size!r}; it is a whole number, at least 1, or auto")
        if self.method not in get_args(Method):
            raise ValueError(f"method is {self.method!r}; it is one of {', '.join(get_args(Method))}")
        for name, (least, most, words) in RANGES.items():
            value = getattr(self, name)
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value}; it takes finite numbers")
            if not least <= value <= most:
                raise ValueError(f"{name} is {value:g}; it is from {least:g} to {most:g} {words}")
        if not is_whole(self.top_k) or self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k!r}; it is a whole number, at least 1, or 0 for all codes")
        if self.precision not in get_args(Precision):
            raise ValueError(
                f"precision is {self.precision!r}; it is one of {', '.join(get_args(Precision))}"
            )


@dataclass(frozen=True)
class Sample(Drawing):
    """How new images are drawn."""

    images: int = 64
    """Number of images."""
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
        if not is_whole(self.images) or self.images < 1:
            raise ValueError(f"images is {self.images!r}; it is a whole number, at least 1")
