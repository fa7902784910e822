"""A prior in a few lines, without a cache of its own, through the public commands: what a new one needs, and
no more."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.conftest import TINY, write_pictures
from vqprior import Generator
from vqprior.configs.schema import Stage2
from vqprior.runtime.codes import Codes, Level
from vqprior.stage2_prior.prior import FullForwards, Prior
from vqprior.stage2_prior.priors import PRIORS


class Toy(Prior):
    """Logits from the code before and the label."""

    def __init__(self, config: Stage2, level: Level, classes: int, above: Sequence[Level] = ()):
        super().__init__(config, level, classes, above)
        self.before = nn.Embedding(level.K + 1, level.K)  # the last row is for the first place
        self.label = nn.Embedding(self.labels, level.K) if self.labels else None

    def forward(
        self, codes: Tensor, labels: Tensor | None = None, above: Codes = (), dropped: None = None
    ) -> Tensor:
        self.check_given(labels, above)
        flat = codes.flatten(1)
        first = torch.full_like(flat[:, :1], self.K)
        logits = self.before(torch.cat([first, flat[:, :-1]], dim=1))
        if labels is not None:
            logits = logits + self.label(labels)[:, None]
        return logits.transpose(1, 2).unflatten(2, codes.shape[1:])

    def label_tensors(self) -> list[str]:
        return ["label.weight"] if self.classes else []


@pytest.fixture
def toy(monkeypatch) -> None:
    monkeypatch.setitem(PRIORS, "gated_pixelcnn", Toy)


FLAGS = [
    "--stage2.label_dropout",
    0.3,
    "--sample.guidance",
    2.0,
    "--stage2.learning_rate",
    0.1,
    "--stage2.average",
    0.5,
]


def test_it_trains_samples_with_guidance_completes_and_evaluates(toy, tmp_path, command):
    pictures, run = write_pictures(tmp_path / "pictures"), tmp_path / "run"
    code, printed = command("run", "folder", *TINY, *FLAGS, "--data.root", pictures, "--out", run)
    assert code == 0, printed
    assert set(load_file(run / "stage2" / "step-00000004" / "model.safetensors")) == {
        "before.weight",
        "label.weight",
    }
    picture = next((pictures / "ant").iterdir())
    code, printed = command(
        "complete", run, "--image", picture, "--hide", "lower half", "--label", "ant", "--guidance", 3
    )
    assert code == 0, printed
    code, printed = command("evaluate", run, "--images", 4, "--classifier_steps", 2)
    assert code == 0, printed
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["stage2"]["bits_per_code"] > 0 and {"ladder", "labels", "copies"} <= metrics.keys()
    code, printed = command("export", run, "--out", tmp_path / "shared")
    assert code == 0, printed
    one, other = (
        Generator.from_run(path).sample(5, seed=3, guidance=1.5) for path in (run, tmp_path / "shared")
    )
    assert np.array_equal(one, other) and len(np.unique(one)) > 1


def test_a_run_with_it_that_is_stopped_goes_on_bit_for_bit(toy, tmp_path, command):
    pictures = write_pictures(tmp_path / "pictures")
    flags = [*TINY, *FLAGS, "--stage2.eval_every", 2, "--data.root", pictures, "--out"]
    assert command("run", "folder", *flags, tmp_path / "whole")[0] == 0
    assert command("run", "folder", *flags, tmp_path / "parts")[0] == 0
    for name in ("step-00000004",):
        for file in (tmp_path / "parts" / "stage2" / name).iterdir():
            file.unlink()
        (tmp_path / "parts" / "stage2" / name).rmdir()
    assert command("run", "folder", *flags, tmp_path / "parts")[0] == 0
    for file in (tmp_path / "whole" / "stage2" / "step-00000004").glob("*.safetensors"):
        other = load_file(tmp_path / "parts" / "stage2" / file.parent.name / file.name)
        assert all(torch.equal(value, other[name]) for name, value in load_file(file).items())


def test_full_forwards_are_its_cache_and_sum_to_its_likelihood():
    torch.manual_seed(0)
    prior = Toy(Stage2(label_dropout=0), Level(4, 2, 3), 0).eval()
    cache = prior.cache(None, maps=2)
    assert isinstance(cache, FullForwards)
    codes = torch.randint(4, (2, 2, 3))
    expected = prior(codes)
    for i in range(2):
        cache.begin_row(i)
        for j in range(3):
            assert torch.equal(cache.logits(j), expected[:, :, i, j])
            cache.put(j, codes[:, i, j])
