"""Whether what is compared can be run."""

import pytest

from benchmarks.same_bytes import RUNS, SAMPLES, SHORT
from vqprior import configs
from vqprior.configs.schema import Sample


@pytest.mark.parametrize("name", RUNS)
def test_the_short_runs_are_of_settings_of_today(name):
    config = configs.parse(configs.find_preset("mnist5k"), [*SHORT, *RUNS[name]])
    assert config.stage1.quantizer == name.split(",")[0] and config.stage1.codebook.restart == 0.5


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_are_of_settings_of_today(name):
    assert configs.parse_options(Sample, SAMPLES[name]).images == 12
