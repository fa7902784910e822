"""What holds for every kind of prior."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from tests.sampling.drawing import drawn
from tests.stage2_prior.every_prior import KINDS, opinionated, settings, some_codes
from vqprior.runtime.average import WeightAverage
from vqprior.runtime.codes import Level
from vqprior.runtime.optimizer import adamw
from vqprior.sampling.choice import Choice
from vqprior.sampling.noise import gumbel_noise
from vqprior.sampling.workspace import Workspace
from vqprior.stage2_prior.measure import log2_prob
from vqprior.stage2_prior.prior import Prior
from vqprior.stage2_prior.priors import build

SIZES = [(1, 7), (5, 3), (2, 2), (7, 7), (1, 1), (6, 1)]
K = 7
every_kind = pytest.mark.parametrize("kind", KINDS)


def dependence(prior: Prior, codes: Tensor) -> Tensor:
    """|d logits / d embedded code|, summed over channels: [out place, in place], in raster order."""
    embedded = prior.embedding(codes).detach().requires_grad_()
    prior.embedding.forward = lambda _: embedded
    logits = prior(codes, torch.zeros(1, dtype=torch.int64) if prior.classes else None).flatten(2)
    weights = torch.linspace(0.5, 1.5, prior.K, dtype=logits.dtype)  # no sum that is always the same
    places = (logits[0] * weights[:, None]).sum(0)
    rows = [torch.autograd.grad(of_place, embedded, retain_graph=True)[0] for of_place in places]
    return torch.stack([row.abs().sum(-1).flatten() for row in rows])


@every_kind
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("codes_per_position", [1, 2])
def test_each_place_sees_all_earlier_places_and_no_other(kind, size, codes_per_position):
    """Causality and no blind spot, by the gradient; the first place, too, and maps of other sizes than the
    prior's own."""
    height, width = size[0], size[1] * codes_per_position
    prior = opinionated(kind, Level(K, 4, 4 * codes_per_position, codes_per_position), 2, layers=14)
    gradient = dependence(prior, torch.randint(K, (1, height, width)))
    earlier = torch.ones_like(gradient).tril(-1).bool()
    assert (gradient[~earlier] == 0).all()
    assert (gradient[earlier] > 0).all()


def seen_from(prior: Prior, codes: Tensor, low: bool = False) -> list[set[int]]:
    """For each place the places whose logits another code there changes."""
    height, width = codes.shape[1:]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=low):
        before = prior(codes).flatten(2)
        changed = []
        for i, j in product(range(height), range(width)):
            other = codes.clone()
            other[0, i, j] = (other[0, i, j] + 1) % prior.K
            moved = (prior(other).flatten(2) != before).any(1)[0]
            changed.append({*moved.nonzero().flatten().tolist()})
    return changed


@every_kind
@pytest.mark.parametrize("weights", ["average", "half"])
@pytest.mark.parametrize("low", [False, True], ids=["fp32", "bf16"])
def test_so_it_is_of_averaged_and_exported_weights_and_in_bf16(kind, weights, low):
    """A mask that lay in the weights would be lost on the way."""
    prior = opinionated(kind, Level(K, 3, 5), dtype=torch.float32, layers=6, spread=0.5)
    if weights == "half":
        prior.load_state_dict({name: value.half().float() for name, value in prior.state_dict().items()})
    else:
        average = WeightAverage(prior, 0.9)
        with torch.no_grad():
            for parameter in prior.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        average.update(0.5)
        with average.applied():
            return check(prior, low)
    check(prior, low)


def check(prior: Prior, low: bool) -> None:
    """Another code changes the next place, and no place up to it."""
    for place, changed in enumerate(seen_from(prior, torch.randint(K, (1, 3, 5)), low)):
        assert not changed & {*range(place + 1)}
        assert place == 14 or place + 1 in changed


@every_kind
@pytest.mark.parametrize("size", [(1, 7), (5, 3), (4, 8)])
@pytest.mark.parametrize(("classes", "guidance"), [(0, 1.0), (3, 1.0), (3, 2.5)])
@pytest.mark.parametrize("levels_above", [0, 1, 2])
@pytest.mark.parametrize("share_known", [0.0, 0.4])
def test_the_cache_gives_what_full_forwards_give(kind, size, classes, guidance, levels_above, share_known):
    if levels_above and size[0] % 2**levels_above + size[1] % 2**levels_above:
        size = (4, 8)
    levels = [Level(K, size[0] // 2**up, size[1] // 2**up) for up in reversed(range(levels_above + 1))]
    prior = opinionated(kind, levels[-1], classes, levels[:-1], layers=3)
    maps, images = 5, torch.arange(5)
    *above, own = some_codes(levels, maps)
    labels = images % classes if classes else None
    known = own.masked_fill(
        torch.rand(own.shape, generator=torch.Generator().manual_seed(1)) >= share_known, -1
    )
    given = dict(maps=maps, known=known, above=tuple(above))
    noise, choice, memory = gumbel_noise(3, images, K), Choice(guidance=guidance), Workspace()
    plain = drawn(prior, labels, noise, choice, in_full=True, **given)
    for _ in range(2):  # and again in the same memory
        assert torch.equal(drawn(prior, labels, noise, choice, workspace=memory, **given), plain)
    assert torch.equal(plain[known >= 0], known[known >= 0]) and len(plain.unique()) > 1


@every_kind
def test_several_codes_a_position_are_told_apart_in_the_cache_too(kind):
    coarse, fine = Level(K, 2, 4, 2), Level(K, 4, 8, 2)
    prior = opinionated(kind, fine, 2, [coarse])
    (above, _), labels = some_codes([coarse, fine], 3), torch.tensor([0, 1, 1])
    noise = gumbel_noise(3, torch.arange(3), K)
    plain, cached = (
        drawn(prior, labels, noise, Choice(), maps=3, above=(above,), in_full=in_full)
        for in_full in (True, False)
    )
    assert torch.equal(plain, cached)
    with torch.no_grad():
        swapped = above.view(3, 2, 2, 2).flip(-1).reshape(above.shape)  # the first for the second code
        assert not torch.allclose(prior(plain, labels, (swapped,)), prior(plain, labels, (above,)))


@every_kind
def test_the_cache_in_bf16_draws_as_the_full_forward_does(kind):
    """Up to ties, which are common where logits are rounded to 8 bits: nearly all codes."""
    prior = opinionated(kind, Level(K, 6, 6), 2, dtype=torch.float32, spread=0.1)
    labels, noise = torch.arange(8) % 2, gumbel_noise(5, torch.arange(8), K)
    how = dict(maps=8, dtype=torch.bfloat16)
    plain = drawn(prior, labels, noise, Choice(), in_full=True, **how)
    cached = drawn(prior, labels, noise, Choice(), **how)
    assert (plain[:, :2] == cached[:, :2]).float().mean() > 0.9


@every_kind
def test_every_place_hears_the_levels_above(kind):
    levels = [Level(K, 1, 2), Level(K, 2, 4), Level(K, 4, 8)]
    prior = opinionated(kind, levels[-1], above=levels[:-1])
    (coarsest, coarse, own), other = some_codes(levels, 1), some_codes(levels, 1, seed=7)
    before = prior(own, None, (coarsest, coarse))
    for changed in ((other[0], coarse), (coarsest, other[1])):
        assert ((prior(own, None, changed) - before).abs().amax(1) > 0).all()
    with pytest.raises(ValueError, match="2 levels above, but those of 0"):
        prior(own)


@every_kind
def test_a_map_does_not_depend_on_the_others_or_on_padding(kind):
    prior = opinionated(kind, Level(K, 3, 5), 3)
    (codes,), labels = some_codes([Level(K, 3, 5)], 6), torch.arange(6) % 3
    whole = prior(codes, labels)
    for part in (slice(0, 1), slice(2, 5), torch.tensor([5, 5, 5])):
        assert torch.allclose(prior(codes[part], labels[part]), whole[part], atol=1e-12)


@every_kind
@pytest.mark.parametrize("size", [(2, 2), (1, 4)])
@pytest.mark.parametrize("classes", [0, 2])
def test_the_probabilities_of_all_maps_sum_to_one(kind, size, classes):
    level = Level(3, *size)
    prior = opinionated(kind, level, classes)
    maps = torch.tensor([*product(range(3), repeat=4)]).view(-1, *size)
    for label in range(classes) if classes else (None,):
        labels = None if label is None else torch.full((81,), label)
        assert torch.exp2(log2_prob(prior, (maps,), labels)).sum().item() == pytest.approx(1, abs=1e-9)


@every_kind
def test_it_begins_as_the_uniform_prior(kind):
    prior = build(settings(kind), [Level(K, 3, 3)], 2)
    labels = torch.tensor([0, 1])
    assert (prior(torch.randint(K, (2, 3, 3)), labels) == 0).all()
    bits = -log2_prob(prior, (torch.randint(K, (2, 3, 3)),), labels)
    assert bits.tolist() == pytest.approx([9 * math.log2(K)] * 2)


@every_kind
@pytest.mark.parametrize("classes", [0, 2])
def test_every_parameter_gets_a_gradient(kind, classes):
    levels = [Level(K, 2, 2), Level(K, 4, 4)]
    prior = opinionated(kind, levels[1], classes, levels[:1]).requires_grad_(True)
    above, codes = some_codes(levels, 6)
    labels = torch.arange(6) % 3 if classes else None  # the hidden one among them
    torch.nn.functional.cross_entropy(prior(codes, labels, (above,)), codes).backward()
    without = [name for name, p in prior.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not without


@every_kind
def test_dropout_is_a_function_of_the_seed_and_the_place_in_the_run(kind):
    prior = build(settings(kind, channels=64, dropout=0.25), [Level(K, 3, 3)], 0)
    if type(prior).dropout is Prior.dropout and not prior.dropout_groups:
        pytest.skip(f"{kind} has no dropout")
    factors = lambda seed, positions: prior.dropout(prior.dropout_keys(seed, positions))
    found = factors(1, torch.arange(500))
    assert found.unique().tolist() == [0, pytest.approx(4 / 3)]
    assert found.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(factors(1, torch.tensor([7, 3])), found[[7, 3]])
    assert not torch.equal(factors(2, torch.arange(500)), found)
    torch.nn.init.normal_(prior.logits.weight)
    codes = torch.randint(K, (2, 3, 3))
    kept, none = prior(codes, dropped=found[:2]), prior(codes)
    assert not torch.allclose(kept, none)
    assert torch.equal(prior(codes, dropped=torch.ones_like(found[:2])), none)
    assert build(settings(kind, dropout=0), [Level(K, 3, 3)], 0).dropout_keys(1, torch.arange(3)) is None


@every_kind
def test_what_is_said_of_its_tensors_is_true(kind):
    """The tables of classes have a row for each and for the hidden label; what is not decayed is there."""
    levels = [Level(K, 2, 2), Level(K, 4, 4)]
    prior = build(settings(kind, fine=True), levels, 3)
    tensors = prior.state_dict()
    assert prior.label_tensors() and {len(tensors[name]) for name in prior.label_tensors()} == {4}
    tables = {name for name in tensors if "embedding" in name}
    assert tables <= {*prior.undecayed()} <= {*tensors}
    assert prior.forward_numbers() > 0 and prior.cached_numbers() > 0


@pytest.mark.parametrize("kind", ["gated_pixelcnn", "pixelsnail"])
def test_class_biases_are_decayed_and_tables_of_codes_are_not(kind):
    prior = build(settings(kind), [Level(K, 3, 3)], 3)
    decayed, others = (group["params"] for group in adamw(prior, weight_decay=0.1).param_groups)
    is_in = lambda group, tensor: any(tensor is one for one in group)
    assert is_in(decayed, prior.label_bias.weight) and is_in(others, prior.embedding.weight)


@every_kind
def test_labels_and_classes_must_agree(kind):
    codes = torch.zeros(1, 2, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="0 classes"):
        opinionated(kind, Level(K, 2, 2))(codes, torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="3 classes"):
        opinionated(kind, Level(K, 2, 2), 3)(codes)
