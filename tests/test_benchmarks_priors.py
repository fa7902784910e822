"""`python -m benchmarks.priors` in miniature."""

import json
import sys

import pytest

from benchmarks import priors
from vqprior import configs
from vqprior.configs import Config
from vqprior.configs.errors import UserError
from vqprior.runtime.run_dir import RunDir
from vqprior.stage2_prior.priors import PRIORS


@pytest.fixture
def compare(command, monkeypatch, finished_run, tmp_path):
    """The benchmark on the codes of a tiny run, its commands in this process."""

    def here(*arguments: object) -> None:
        code, printed = command(*arguments)
        assert code == 0, printed

    monkeypatch.setattr(priors, "vqprior", here)
    monkeypatch.setattr(priors, "TRIED", 1)
    monkeypatch.setattr(priors, "GUIDED", 4)

    def call(*options: str) -> dict:
        given = ["priors", str(finished_run), "--out", str(tmp_path / "out"), "--seconds", "0.01", *options]
        monkeypatch.setattr(sys, "argv", given)
        priors.main()
        return json.loads((tmp_path / "out" / "priors.json").read_text())["priors"]

    return call


def test_all_kinds_and_seeds_are_compared(compare):
    rates = [f"{kind}=1e-3" for kind in PRIORS]
    table = compare("--seeds", "0", "1", "--rates", *rates)
    assert [*table] == [f"{kind}-{seed}" for kind in PRIORS for seed in (0, 1)]
    assert all(row["bits/code"] > 0 and row["s/64 maps"] > 0 and row["FD"] is None for row in table.values())
    one, other = table["transformer-0"], table["transformer-1"]
    assert one["weights"] == other["weights"] and one["bits/code"] != other["bits/code"]


def test_rates_and_guidance_are_searched_once_and_samples_measured(compare, tmp_path):
    options = "--kinds gated_pixelcnn --evaluate --classifier_steps 3 --seeds 0 1".split()
    table = compare(*options, "--flags", "--stage2.label_dropout", "0.1")
    one, other = table["gated_pixelcnn-0"], table["gated_pixelcnn-1"]
    assert one["guidance"] == other["guidance"] and one["guidance"] in priors.GUIDANCES
    assert one["rate"] == other["rate"] and one["rate"] in priors.LEARNING_RATES["gated_pixelcnn"]
    assert all(row[name] is not None for row in (one, other) for name in ("FD", "label", "CAS", "near"))
    folders = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    best, worse = sorted(priors.LEARNING_RATES["gated_pixelcnn"], key=lambda rate: rate != one["rate"])
    names = {f"gated_pixelcnn-{best:g}-0", f"gated_pixelcnn-{best:g}-1", f"gated_pixelcnn-{worse:g}-0"}
    assert folders == names


def test_every_rate_gets_all_of_the_time_and_the_best_by_held_out_bits_is_taken(compare, monkeypatch):
    monkeypatch.setattr(priors, "seconds_per_step", lambda *_: 0.005)
    (row,) = compare("--kinds", "gated_pixelcnn", "--rates", "gated_pixelcnn=1e-5,2e-2").values()
    assert (row["rate"], row["steps"]) == (0.02, 2)  # which two steps say: at 1e-5 nothing is learnt


def test_a_rate_of_no_kind_is_refused(compare):
    with pytest.raises(UserError, match=r"pixelsnial.*expected KIND=RATE"):
        compare("--rates", "pixelsnial=1e-3")


def test_a_comparison_goes_on_with_the_steps_and_the_rate_that_it_began_with(compare):
    options = ["--kinds", "gated_pixelcnn", "--rates"]
    (before,) = compare(*options, "gated_pixelcnn=1e-3").values()
    (after,) = compare(*options, "gated_pixelcnn=1e-3", "--seconds", "9").values()
    assert (after["steps"], after["bits/code"]) == (before["steps"], before["bits/code"])
    with pytest.raises(UserError, match=r"stage2.channels 8 there and 16 now; delete it"):
        compare(*options, "gated_pixelcnn=1e-3", "--flags", "--stage2.channels", "16")


def test_a_run_without_its_finer_priors_is_refused_before_anything_is_trained(tmp_path):
    config = configs.parse_options(Config, ["--stage1.levels", "2"])
    (tmp_path / "config.yaml").write_text(configs.dump(config))
    with pytest.raises(UserError, match=r"the prior of level 1, .* is missing: vqprior train-prior"):
        priors.refuse_without_finer(RunDir(tmp_path))
