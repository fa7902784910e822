"""Priors that were trained when each layer had a table of class biases of its own, and moments were
numbered."""

from types import SimpleNamespace

import torch

from vqprior.configs.schema import GatedPixelCNN, Stage2
from vqprior.runtime.codes import Level
from vqprior.runtime.optimizer import adamw
from vqprior.runtime.run_state import moments_of
from vqprior.stage2_prior.gated_pixelcnn.model import PixelCNN


def taken_apart(model: PixelCNN, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors by name as earlier versions had them, in the order in which their parameters stood."""
    tables = tensors["label_bias.weight"]
    tables = tables.chunk(len(model.layers), dim=1) if tables.ndim else [tables] * len(model.layers)
    found = {}
    for name, tensor in tensors.items():
        if name != "label_bias.weight":
            found[name] = tensor
        if name.endswith(".project.bias"):
            layer = name.removesuffix(".project.bias")
            found[f"{layer}.label_bias.weight"] = tables[int(layer.split(".")[1])]
    return found


def prior() -> PixelCNN:
    torch.manual_seed(0)
    return PixelCNN(Stage2(channels=4, layers=12, gated_pixelcnn=GatedPixelCNN(head=4)), Level(5, 3, 3), 3)


def test_weights_and_numbered_moments_of_earlier_versions_find_their_parameters():
    """More than ten layers, whose names in the order of the alphabet are not in the order of their
    numbers."""
    model = prior()
    chance = torch.Generator().manual_seed(1)
    expected = {name: torch.randn(p.shape, generator=chance) for name, p in model.named_parameters()}
    weights = taken_apart(model, expected)
    decayed = [name for name, tensor in weights.items() if tensor.ndim > 1 and "embedding" not in name]
    others = [name for name in weights if name not in decayed]
    moments = {"exp_avg": weights, "step": taken_apart(model, {name: torch.tensor(7.0) for name in expected})}
    files = {
        "model": weights,
        "optimizer": {
            f"{index}.{moment}": tensors[name]
            for moment, tensors in moments.items()
            for index, name in enumerate([*decayed, *others])
        },
    }
    found = SimpleNamespace(tensors=files.__getitem__)
    joined = model.renamed(found.tensors("model"))
    assert joined.keys() == expected.keys()
    assert all(torch.equal(joined[name], tensor) for name, tensor in expected.items())
    named = moments_of(found, model.numbered(), model.renamed, model.undecayed())
    assert named.keys() == {f"{name}.{moment}" for name in expected for moment in moments}
    assert all(torch.equal(named[f"{name}.exp_avg"], tensor) for name, tensor in expected.items())
    assert all(named[f"{name}.step"] == 7 for name in expected)


def test_what_todays_version_writes_is_read_as_it_is():
    model = prior()
    named = {f"{name}.exp_avg": p for name, p in model.named_parameters()}
    found = SimpleNamespace(tensors={"model": dict(model.state_dict()), "optimizer": named}.__getitem__)
    assert model.renamed(found.tensors("model")).keys() == model.state_dict().keys()
    read = moments_of(found, model.numbered(), model.renamed, model.undecayed())
    assert all(read[name] is tensor for name, tensor in named.items())


def test_an_optimizer_decays_the_table_as_it_did_its_parts():
    optimizer = adamw(prior(), weight_decay=0.1)
    shapes = [tuple(p.shape) for p in optimizer.param_groups[0]["params"]]
    assert (4, 12 * 4 * 4) in shapes and optimizer.param_groups[0]["weight_decay"] == 0.1
