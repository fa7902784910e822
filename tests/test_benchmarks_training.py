"""Benchmarks that train, in miniature."""

import json
import sys

import pytest
import torch

from benchmarks import ablations, training_speed
from tests.conftest import TINY, TINY_MAPS
from vqprior import configs

FINE = (
    "--stage2_fine.steps 4 --stage2_fine.batch_size 8 --stage2_fine.channels 8 --stage2_fine.layers 2".split()
)
FINE += "--stage2_fine.save_every 2 --stage2_fine.eval_every 4 --stage2_fine.above_blocks 1".split()


@pytest.mark.parametrize("stage", [training_speed.stage1, training_speed.stage2])
def test_a_step_of_both_stages_learns(stage):
    flags = "--stage1.batch_size 4 --stage2.batch_size 4 --stage1.width 8 --stage2.channels 8".split()
    trained = stage(configs.parse(configs.find_preset("mnist5k"), flags), "no", False, False)
    trained.optimizer.param_groups[0]["lr"] = 0.01  # which a loop would set
    before = [parameter.detach().clone() for parameter in trained.model.parameters()]
    trained.step()
    assert not all(map(torch.equal, before, trained.model.parameters()))


@pytest.mark.parametrize("given", [TINY, [*TINY_MAPS, *FINE]], ids=["one level", "two levels"])
def test_variants_that_share_stage_one_are_in_the_table(
    command, monkeypatch, pictures, tmp_path, given, capsys
):
    """What a step of theirs takes is the other run's to say."""

    def here(*arguments: object) -> None:
        code, printed = command(*arguments)
        assert code == 0, printed

    monkeypatch.setattr(ablations, "vqprior", here)
    words = "ablations folder --variants preset no-dropout --classifier_steps 2 --images 5".split()
    words += ["--out", str(tmp_path / "out"), "--flags", *given, "--data.root", str(pictures)]
    monkeypatch.setattr(sys, "argv", words)
    ablations.main()
    table = json.loads((tmp_path / "out" / "ablations.json").read_text())
    assert table["preset"]["ms/step"] > 0 and table["no-dropout"]["ms/step"] is None
    assert table["preset"]["MSE"] == table["no-dropout"]["MSE"]
    assert len(table["preset"]["perplexity"]) == (1 if given is TINY else 2)
    assert "no-dropout" in capsys.readouterr().out
