"""The quantizers there are: one file an idea, and one place where a configuration becomes one."""

from vqprior.configs.schema import Stage1

from .codebook import EMACodebook, GradientCodebook
from .fsq import FSQ
from .quantizer import Quantized, Quantizer

QUANTIZERS: dict[str, type[Quantizer]] = {"ema": EMACodebook, "gradient": GradientCodebook, "fsq": FSQ}
"""By the names of `stage1.quantizer`."""

__all__ = ["QUANTIZERS", "Quantized", "Quantizer", "build"]


def build(config: Stage1) -> Quantizer:
    """The quantizer that a configuration describes."""
    return QUANTIZERS[config.quantizer].of(config)
