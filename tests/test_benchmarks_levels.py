"""`python -m benchmarks.levels` without its trainings."""

import pytest

from benchmarks.levels import VARIANTS, flags_of, train
from vqprior import configs
from vqprior.configs.errors import UserError


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_takes_flags_for_all_of_them(name):
    """Those of finer priors are refused by a run of one level."""
    flags = flags_of(name, ["--stage2_fine.dropout", "0.3", "--stage1.steps", "7"])
    config = configs.parse(configs.find_preset("folder"), flags)
    assert config.stage1.steps == 7
    assert (config.stage2_fine.dropout == 0.3) == (config.stage1.levels > 1)


def test_weights_of_another_command_are_left_alone(finished_run):
    before = sorted(finished_run.rglob("*"))
    with pytest.raises(UserError, match="begun by another command"):
        train(["train-vqvae", finished_run], "--stage1.steps", finished_run / "stage1", 1.0)
    assert sorted(finished_run.rglob("*")) == before
