"""Pictures of more than 8 bits: which values become black and white.

What the type could hold says little: scanners and cameras store 12 bits in 16, floats lie in [0, 1] or
anywhere. So the rule goes by what was found, over the whole set:

whole numbers   up to 255, 1023, 4095, 16383, 65535: from 0 to the least of these that holds them all
floats          in [0, 1]: those; in [-1, 1]: those; in [0, 255]: those
all others      from the least to the greatest value found
"""

from collections.abc import Iterable

import numpy as np

from vqprior.configs.errors import UserError

Range = tuple[float, float]
BITS = (8, 10, 12, 14, 16)  # that whole numbers are stored in


def measure(arrays: Iterable[np.ndarray]) -> tuple[Range, bool]:
    """The least and the greatest value of all arrays, and whether all of them hold whole numbers.

    What is masked (decode.py: transparent) does not count.

    Raises:
        UserError: there are none, all values are one, or they lie further apart than a float can say.
    """
    low, high, whole = np.inf, -np.inf, True
    for array in arrays:
        values = np.ma.compressed(array)
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            whole = whole and array.dtype.kind in "iu"
    if low < high and np.isfinite(high - low):
        return (low, high), whole
    found = "they hold no value" if low > high else f"they go from {low:g} to {high:g}"
    raise UserError(f"pictures of more than 8 bits have no range ({found}): give one, --data.range LOW HIGH")


def guess(ends: Range, whole: bool) -> Range:
    """The range by the rule above, from the least and greatest value found."""
    low, high = ends
    if whole:
        tops = [2.0**bits - 1 for bits in BITS if high <= 2**bits - 1]
        return (0.0, tops[0]) if low >= 0 and tops else ends
    for least, most in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
        if least <= low and high <= most:
            return least, most
    return ends


def measured(arrays: Iterable[np.ndarray]) -> Range:
    """The range of a set of pictures: `guess` of what `measure` finds."""
    return guess(*measure(arrays))
