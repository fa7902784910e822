"""Every setting of the pipeline: frozen dataclasses, one docstring a field, which is also its --help.

A preset (configs/*.yaml) is a tree of these names; a flag is the path to one of them (`--stage1.K 512`).
"""

from .config import Config, Tracker
from .data import PLACES, Data, OnError, Source
from .sample import Drawing, Method, Sample, is_whole, refuse_seed
from .stage1 import (
    FSQ,
    KINDS_WITH,
    LEAST_OF_ADVERSARY,
    LFQ,
    MOST_LEVELS,
    WEIGHTS,
    Adversary,
    Codebook,
    Features,
    FeaturesOf,
    Gradient,
    Likelihood,
    Quantizer,
    Stage1,
    Trained,
)
from .stage2 import GatedPixelCNN, PixelSNAIL, PriorKind, Stage2, Stage2Fine, Transformer
from .training import Precision, Training

__all__ = [
    "FSQ",
    "KINDS_WITH",
    "LEAST_OF_ADVERSARY",
    "LFQ",
    "MOST_LEVELS",
    "PLACES",
    "WEIGHTS",
    "Adversary",
    "Codebook",
    "Config",
    "Data",
    "Drawing",
    "Features",
    "FeaturesOf",
    "GatedPixelCNN",
    "Gradient",
    "Likelihood",
    "Method",
    "OnError",
    "PixelSNAIL",
    "Precision",
    "PriorKind",
    "Quantizer",
    "Sample",
    "Source",
    "Stage1",
    "Stage2",
    "Stage2Fine",
    "Tracker",
    "Trained",
    "Training",
    "Transformer",
    "is_whole",
    "refuse_seed",
]
