import pytest
import torch

from vqprior.configs.schema import GatedPixelCNN, Stage2
from vqprior.runtime.codes import Level
from vqprior.stage2_prior.gated_pixelcnn.model import PixelCNN


def prior(kernel: int = 3, layers: int = 8, classes: int = 0, **settings) -> PixelCNN:
    torch.manual_seed(0)
    config = Stage2(
        channels=6, layers=layers, gated_pixelcnn=GatedPixelCNN(kernel=kernel, head=8), **settings
    )
    model = PixelCNN(config, Level(7, 3, 3), classes).double().eval()
    torch.nn.init.normal_(model.logits.weight)  # it starts at zero, which would hide every dependence
    return model


def dependence(model: PixelCNN, height: int, width: int) -> torch.Tensor:
    """|d logits / d input| summed over channels: [out place, in place], places in raster order."""
    codes = torch.randint(model.K, (1, height, width))
    labels = torch.zeros(1, dtype=torch.int64) if model.classes else None
    embedded = model.embedding(codes).detach().requires_grad_()
    model.embedding.forward = lambda _: embedded
    logits = model(codes, labels).flatten(2).sum(1)[0]
    rows = [
        torch.autograd.grad(logit, embedded, retain_graph=True)[0].abs().sum(-1).flatten() for logit in logits
    ]
    return torch.stack(rows)


@pytest.mark.parametrize(("height", "width"), [(5, 9), (9, 5), (1, 1), (1, 6), (6, 1), (7, 7)])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_each_place_sees_all_earlier_places_and_no_other(height, width, kernel):
    """Causality and no blind spot, by the gradient."""
    gradient = dependence(prior(kernel), height, width)
    earlier = torch.ones_like(gradient).tril(-1).bool()
    assert (gradient[~earlier] == 0).all()
    assert (gradient[earlier] > 0).all()


def test_the_reach_grows_with_the_layers():
    gradient = dependence(prior(layers=2), 1, 9)
    assert gradient[8].nonzero().flatten().tolist() == [6, 7]  # one code to the left a layer


def test_the_first_place_depends_on_nothing_but_the_label():
    model = prior(classes=3)
    codes = torch.randint(7, (2, 3, 4))
    labels = torch.tensor([1, 1])
    logits = model(codes, labels)
    assert torch.equal(logits[0, :, 0, 0], logits[1, :, 0, 0])
    assert not torch.allclose(model(codes, torch.tensor([1, 2]))[1, :, 0, 0], logits[1, :, 0, 0])


def test_labels_and_classes_must_agree():
    with pytest.raises(ValueError, match="0 classes"):
        prior()(torch.zeros(1, 2, 2, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="3 classes"):
        prior(classes=3)(torch.zeros(1, 2, 2, dtype=torch.int64))


def test_it_starts_as_the_uniform_prior():
    model = PixelCNN(Stage2(channels=6, layers=2, gated_pixelcnn=GatedPixelCNN(head=8)), Level(7, 3, 3), 0)
    assert (model(torch.randint(7, (2, 3, 3))) == 0).all()


def drawn(config: Stage2, seed: int, positions: torch.Tensor) -> torch.Tensor | None:
    """Dropout's factors of the maps at these positions."""
    model = PixelCNN(config, Level(7, 3, 3), 0)
    return model.dropout(model.dropout_keys(seed, positions))


def test_dropout_is_a_function_of_the_place_in_the_run_and_keeps_the_mean():
    config = Stage2(channels=64, layers=3, dropout=0.25)
    kept = drawn(config, 1, torch.arange(1000))
    assert kept.shape == (1000, 3, 64) and kept.unique().tolist() == [0, pytest.approx(4 / 3)]
    assert kept.mean().item() == pytest.approx(1, abs=0.006)  # four standard errors
    for axis in range(3):  # and none of maps, layers and channels is like another
        assert (kept == kept.roll(1, axis)).float().mean().item() == pytest.approx(
            0.75**2 + 0.25**2, abs=0.01
        )
    assert torch.equal(drawn(config, 1, torch.arange(990, 1000)), kept[990:])
    assert not torch.equal(drawn(config, 2, torch.arange(1000)), kept)
    assert drawn(Stage2(dropout=0), 1, torch.arange(3)) is None


@pytest.mark.parametrize("factor", [0.0, 4 / 3])
def test_factors_scale_the_gated_channels_of_their_map_and_layer(factor):
    model, codes = prior(), torch.randint(7, (2, 4, 4))
    kept = torch.ones(2, len(model.layers), model.hidden.in_channels, dtype=torch.float64)
    assert torch.equal(model(codes, dropped=kept), model(codes))
    kept[1, 2, 3] = factor
    found, plain = model(codes, dropped=kept), model(codes)
    model.layers[2].project.weight.data[:, 3] *= factor
    expected = model(codes)
    assert torch.equal(found[0], plain[0]) and torch.allclose(found[1], expected[1], rtol=1e-12)
    assert not torch.allclose(expected[1], plain[1], rtol=1e-3)


def test_every_parameter_gets_a_gradient():
    model = prior(classes=2)
    codes = torch.randint(7, (3, 4, 4))
    torch.nn.functional.cross_entropy(model(codes, torch.tensor([0, 1, 1])), codes).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_codes_of_one_position_are_told_apart_and_seen_in_order():
    torch.manual_seed(0)
    model = (
        PixelCNN(Stage2(channels=6, layers=8, gated_pixelcnn=GatedPixelCNN(head=8)), Level(7, 3, 3, 3), 0)
        .double()
        .eval()
    )
    torch.nn.init.normal_(model.logits.weight)
    gradient = dependence(model, 3, 6)
    earlier = torch.ones_like(gradient).tril(-1).bool()
    assert (gradient[~earlier] == 0).all() and (gradient[earlier] > 0).all()

    del model.embedding.forward
    # far from both ends, all codes alike
    inside = model(torch.zeros(1, 1, 40, dtype=torch.int64))[0, :, 0, 20:27]
    assert torch.allclose(inside[:, 0], inside[:, 3]) and torch.allclose(inside[:, 1], inside[:, 4])
    assert not torch.allclose(inside[:, 0], inside[:, 1]) and not torch.allclose(inside[:, 1], inside[:, 2])
