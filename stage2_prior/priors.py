"""The priors there are, and the only places where one is made."""

from collections.abc import Sequence

import torch

from vqprior.configs import from_tree
from vqprior.configs.errors import UserError
from vqprior.configs.schema import Stage2
from vqprior.runtime.checkpoint import Checkpoint, load_into
from vqprior.runtime.codes import Level

from .gated_pixelcnn.model import PixelCNN
from .pixelsnail.model import PixelSNAIL
from .prior import Prior
from .transformer.model import Transformer

PRIORS: dict[str, type[Prior]] = {
    "gated_pixelcnn": PixelCNN,
    "pixelsnail": PixelSNAIL,
    "transformer": Transformer,
}
"""By the names of `stage2.prior`."""


def build(config: Stage2, levels: Sequence[Level], classes: int) -> Prior:
    """A prior as the configuration describes it, for the maps of the last of these levels, which is told
    those before, and a number of classes."""
    *above, level = levels
    return PRIORS[config.prior](config, level, classes, above)


def load_prior(saved: Checkpoint, device: torch.device) -> Prior:
    """The prior of a checkpoint, rebuilt from the configuration and the header it carries, for evaluation.

    Raises:
        UserError: the checkpoint is not one of stage two or of this version.
    """
    if saved.meta.get("stage") != "stage2":
        raise UserError(f"{saved.path} is a checkpoint of {saved.meta.get('stage')}, expected one of stage2")
    codes, number = saved.meta["codes"], saved.meta["level"]
    levels = [Level(**level) for level in codes["levels"][: number + 1]]
    settings = from_tree(saved.meta["config"]).stage2_of(number)
    model = build(settings, levels, len(codes["label_names"]))
    load_into(model, saved.tensors(saved.weights), saved)
    return model.to(device).eval().requires_grad_(False)
