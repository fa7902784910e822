"""A network in evaluation mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in evaluation mode; after it in the mode it was in, under an exception too."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
