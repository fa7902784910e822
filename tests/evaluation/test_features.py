import os
import shutil

import pytest
import torch

from vqprior.configs import UserError
from vqprior.evaluation.features import of_torch_fidelity

registry = pytest.importorskip("torch_fidelity.registry")
base = pytest.importorskip("torch_fidelity.feature_extractor_base")
CPU = torch.device("cpu")


class Means(base.FeatureExtractorBase):
    """Weighted means of four quarters of each channel: a network as torch-fidelity has them."""

    def __init__(self, name, features_list, feature_extractor_weights_path=None, **_):
        super().__init__(name, features_list)
        self.weight = torch.nn.Parameter(torch.ones(12))
        if feature_extractor_weights_path:
            self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=False))

    @staticmethod
    def get_provided_features_list():
        return ("means",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "means"

    @staticmethod
    def can_be_compiled():
        return False

    def forward(self, x):
        assert x.dtype == torch.uint8 and x.shape[1] == 3
        return (torch.nn.functional.adaptive_avg_pool2d(x.float(), 2).flatten(1) * self.weight,)


@pytest.fixture
def means():
    registry.register_feature_extractor("means", Means)
    yield "means"
    del registry.FEATURE_EXTRACTORS_REGISTRY["means"]


def test_any_registered_network_by_name_on_grey_and_colour(means, tmp_path):
    extractor = of_torch_fidelity(means, None, CPU)
    assert (extractor.name, extractor.distance) == ("means", "FD(means)")  # FID is that of one network only
    colour = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8)
    assert torch.allclose(extractor.features(colour)[:, 0], colour[:, 0, :4, :4].float().mean((1, 2)))
    grey = extractor.features(colour[:, :1])
    assert grey.shape == (5, 12) and torch.equal(grey[:, :4], grey[:, 8:])

    torch.save({"weight": torch.full((12,), 2.0)}, tmp_path / "weights.pth")
    assert torch.equal(
        of_torch_fidelity(means, str(tmp_path / "weights.pth"), CPU).features(colour),
        2 * extractor.features(colour),
    )


def test_the_ladder_takes_it(means, finished_run, tmp_path, command):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    code, printed = command("evaluate", run, "--features", means, "--only", "ladder")
    assert code == 0 and "FD(means)" in printed and "train a classifier" not in printed


class Payload:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("old_format", [False, True])
def test_weights_that_would_run_code_are_refused(means, tmp_path, old_format):
    file, trace = tmp_path / "weights.pth", tmp_path / "trace"
    torch.save({"weight": Payload(trace)}, file, _use_new_zipfile_serialization=not old_format)
    with pytest.raises(UserError, match="could run code"):
        of_torch_fidelity(means, str(file), CPU)
    assert not trace.exists()
    with pytest.raises(UserError, match="is not a file"):
        of_torch_fidelity(means, str(tmp_path / "none"), CPU)


def test_weights_that_do_not_fit_are_refused(means, tmp_path):
    torch.save({"other": torch.ones(2)}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="cannot be had"):
        of_torch_fidelity(means, str(tmp_path / "weights.pth"), CPU)
