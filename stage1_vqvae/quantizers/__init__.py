"""The quantizers by the names that `stage1.quantizer` takes: each is the KIND of the module of its name."""

from importlib import import_module
from typing import get_args

from vqprior.configs import schema

from .quantizer import Quantized, Quantizer
from .residual import Residual

__all__ = ["QUANTIZERS", "Quantized", "Quantizer", "build"]

NAMES = get_args(schema.Quantizer)
QUANTIZERS: dict[str, type[Quantizer]] = {name: import_module(f".{name}", __name__).KIND for name in NAMES}


def build(settings: schema.Stage1) -> Quantizer:
    """The quantizer of a level that the settings ask for."""
    kind = QUANTIZERS[settings.quantizer]
    if not settings.residual:
        return kind.build(settings)
    return Residual([kind.build(settings, depth) for depth in range(settings.codes_per_position)])
