import pytest
import torch
from torch import nn

from vqprior.runtime.average import WeightAverage


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    model[1].running_mean.fill_(2.0)
    return model


@pytest.mark.parametrize("decides", ["the host", "a tensor"])
def test_it_moves_towards_the_weights_and_copies_buffers(decides):
    model = network()
    average = WeightAverage(model, decay=0.9)
    before = {name: value.clone() for name, value in average.tensors.items()}
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(1)
    weight = average.weight(1000)
    assert weight == pytest.approx(0.1)
    average.update(weight) if decides == "the host" else average.update(
        torch.tensor(weight), torch.tensor(0.0)
    )
    for name, value in average.tensors.items():
        moved = 1.0 if name.startswith("1.running") or "num_batches" in name else 0.1
        assert torch.allclose(value.double(), before[name].double() + moved, atol=1e-6), name


def test_a_step_that_a_tensor_calls_unsound_leaves_it():
    model = network()
    average = WeightAverage(model, decay=0.9)
    before = {name: value.clone() for name, value in average.tensors.items()}
    with torch.no_grad():
        model[0].weight.add_(1)
    average.update(torch.tensor(0.1), torch.tensor(1.0))
    assert all(torch.equal(value, before[name]) for name, value in average.tensors.items())


def test_a_young_average_follows_closely():
    average = WeightAverage(network(), decay=0.999)
    assert [round(average.weight(step), 3) for step in (1, 10, 10**6)] == [0.818, 0.45, 0.001]


def test_the_module_has_the_average_inside_and_its_own_weights_after():
    model = network()
    average = WeightAverage(model, decay=0.9)
    with torch.no_grad():
        model[0].weight.fill_(7)
    with pytest.raises(RuntimeError, match="in the middle"), average.applied():
        assert torch.equal(model[0].weight, average.tensors["0.weight"])
        raise RuntimeError("in the middle")
    assert (model[0].weight == 7).all()


def test_what_does_not_learn_stays_to_the_sign_of_a_zero():
    """Or weights that are kept as they are would have another fingerprint."""
    model = network()
    with torch.no_grad():
        model[0].weight.fill_(-0.0)
    model[0].weight.requires_grad_(False)
    average = WeightAverage(model, decay=0.9)
    for step in range(20):
        average.update(average.weight(step))
    assert average.tensors["0.weight"].signbit().all()
