"""The quantizers by the names that `stage1.quantizer` takes: each is the KIND of the module of its name."""

from importlib import import_module
from typing import get_args

from vqprior.configs import schema

from .quantizer import Quantized, Quantizer

__all__ = ["QUANTIZERS", "Quantized", "Quantizer"]

NAMES = get_args(schema.Quantizer)
QUANTIZERS: dict[str, type[Quantizer]] = {name: import_module(f".{name}", __name__).KIND for name in NAMES}
