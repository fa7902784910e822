import pytest
from torch import nn

from vqprior.runtime.evaluating import evaluating


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_comes_back_whatever_happens(training):
    model = nn.Sequential(nn.Dropout()).train(training)
    with evaluating(model):
        assert not model.training and not model[0].training
    assert model.training == model[0].training == training
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert model.training == model[0].training == training
