"""How the checkpoint of stage one is chosen that everything after it uses (`checkpoint.best`)."""

from vqprior.configs.schema import Stage1

from .measure import Reconstruction

CHOSEN = "chosen"  # in the meta of a checkpoint: how, in words


def how_chosen(settings: Stage1) -> str:
    """What stands behind "chosen"."""
    if settings.adversarial:
        return "as the latest: beside an adversary no error tells which pictures are best"
    if settings.perceptual:
        return "by error and perceptual distance on the validation split, weighed as in training"
    return "by the error on the validation split"


def score_of(settings: Stage1, found: Reconstruction, unit: float, step: int) -> float:
    """The number that says so, less is better.

    Args:
        found: of the validation split.
        unit: that the objective divides the loss of the decoder's likelihood by.
        step: of the checkpoint.
    """
    if settings.adversarial:
        return float(-step)
    if settings.perceptual:
        return found.loss / unit + settings.perceptual * found.perceptual
    return found.loss
