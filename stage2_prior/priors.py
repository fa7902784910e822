"""The priors there are, and the only places where one is made."""

import torch

from vqprior.configs import from_tree
from vqprior.configs.errors import UserError
from vqprior.configs.schema import Stage2
from vqprior.runtime.checkpoint import Checkpoint
from vqprior.runtime.codes import Level

from .gated_pixelcnn.model import PixelCNN
from .prior import Prior

PRIORS: dict[str, type[Prior]] = {"gated_pixelcnn": PixelCNN}
"""By the names of `stage2.prior`."""


def build(config: Stage2, level: Level, classes: int) -> Prior:
    """A prior as the configuration describes it, for the maps of a level and a number of classes."""
    return PRIORS[config.prior](config, level, classes)


def load_prior(found: Checkpoint, device: torch.device) -> Prior:
    """The prior of a checkpoint, rebuilt from the configuration and the header it carries, for evaluation.

    Raises:
        UserError: the checkpoint is not one of stage two.
    """
    if found.meta.get("stage") != "stage2":
        raise UserError(f"{found.path} is a checkpoint of {found.meta.get('stage')}, expected one of stage2")
    codes = found.meta["codes"]
    model = build(
        from_tree(found.meta["config"]).stage2, Level(**codes["levels"][0]), len(codes["label_names"])
    )
    model.load_state_dict(model.renamed(found.tensors(found.weights)))
    return model.to(device).eval().requires_grad_(False)
