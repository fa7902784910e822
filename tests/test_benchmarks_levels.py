"""`python -m benchmarks.levels` without its trainings."""

import pytest

from benchmarks.levels import VARIANTS, flags_of
from vqprior import configs


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_takes_flags_for_all_of_them(name):
    """Those of finer priors are refused by a run of one level."""
    flags = flags_of(name, ["--stage2_fine.dropout", "0.3", "--stage1.steps", "7"])
    config = configs.parse(configs.find_preset("folder"), flags)
    assert config.stage1.steps == 7
    assert (config.stage2_fine.dropout == 0.3) == (config.stage1.levels > 1)
