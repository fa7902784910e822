"""Where weights come from: the codes that a prior learnt, and the weights that a stage began from."""

from typing import Any

from . import checkpoint, code_maps
from .run_dir import RunDir


def codes_origin(run: RunDir) -> dict[str, Any] | None:
    """What a run's codes come from (see `code_maps.Header.origin`): as its prior says, else its code maps.

    None where there is neither.

    Raises:
        UserError: the header of the code maps is damaged.
    """
    for found in checkpoint.readable(run.stage2):
        return found.meta["codes"]
    header = code_maps.read_header(run.codes)
    return header.origin() if header else None
