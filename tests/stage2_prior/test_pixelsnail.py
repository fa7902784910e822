import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.stage2_prior.every_prior import opinionated, some_codes
from vqprior.configs.schema import PixelSNAIL
from vqprior.runtime.codes import Level
from vqprior.stage2_prior.pixelsnail.layers import HEAD, Attention, Told
from vqprior.stage2_prior.prior import Cache

K = 7


def attention(channels: int = 6, heads: int = 2, places: int = 3) -> Attention:
    """With opinions, and in fp64."""
    torch.manual_seed(0)
    made = Attention(channels, heads, places, conditional=False).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


@pytest.mark.parametrize(("height", "width"), [(1, 7), (5, 3), (2, 2), (1, 1)])
def test_attention_reads_all_that_is_strictly_earlier_and_nothing_else(height, width):
    """By the gradient: of the code of its own place it is not told, of its own feature it is."""
    layer, sizes = attention(), (1, height, width, 6)
    features, codes = (torch.randn(sizes, dtype=torch.float64, requires_grad=True) for _ in range(2))
    places = torch.randn(height, width, 3, dtype=torch.float64)
    out = layer(features.permute(0, 3, 1, 2), codes, places, Told()).sum(1).flatten()
    for place, of_place in enumerate(out):
        seen = torch.autograd.grad(of_place, (features, codes), retain_graph=True)
        feature, code = (gradient.abs().sum(-1).flatten() > 0 for gradient in seen)
        before = torch.arange(height * width) < place
        assert torch.equal(code, before)
        assert torch.equal(feature, before | (torch.arange(height * width) == place))


def test_the_first_place_reads_what_is_learnt():
    layer = attention()
    features, codes = torch.randn(2, 2, 3, 6, dtype=torch.float64), torch.randn(2, 2, 3, 6).double()
    read = layer._read(features, codes, torch.randn(2, 3, 3, dtype=torch.float64))
    values = layer.before[2 * HEAD :].expand(2, -1)
    assert torch.allclose(read[:, 0, 0], values) and not torch.allclose(read[:, 0, 1], values)


@pytest.mark.parametrize("part", ["convolutions", "attention"])
def test_the_class_conditions_every_gate(part):
    """What the class adds before one kind of gate alone is heard."""
    prior = opinionated("pixelsnail", Level(K, 3, 3), 2)
    of_gates = prior.label_bias.weight.view(prior.labels, prior.gates, -1)
    attends = torch.tensor([False, False, True, False, False, True])  # two blocks of two layers
    of_gates[:, attends if part == "convolutions" else ~attends] = 0
    (codes,) = some_codes([Level(K, 3, 3)], 1)
    one, other = (prior(codes, torch.tensor([label])) for label in (0, 1))
    heard = ((one - other).abs().amax(1) > 1e-6).flatten()
    assert heard.all()


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("size", [(1, 6), (6, 1), (5, 9), (8, 8)])
@pytest.mark.parametrize("codes_per_position", [1, 2])
def test_cached_logits_are_those_of_the_full_forward(kernel, size, codes_per_position):
    level = Level(K, size[0], size[1] * codes_per_position, codes_per_position)
    prior = opinionated("pixelsnail", level, 2, pixelsnail=PixelSNAIL(blocks=2, kernel=kernel, heads=3))
    (codes,), labels = some_codes([level], 3), torch.tensor([0, 1, 2])
    expected, cache = prior(codes, labels), prior.cache(labels, maps=3)
    for i in range(level.height):
        cache.begin_row(i)
        for j in range(level.width):
            assert (cache.logits(j) - expected[:, :, i, j]).abs().max() < 1e-10
            cache.put(j, codes[:, i, j])


class Taken(TorchDispatchMode):
    """Inside, the shapes of all tensors that come into being in memory of their own."""

    def __init__(self):
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        held = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        self.shapes |= {
            tuple(t.shape)
            for t in tree_leaves(results)
            if isinstance(t, Tensor) and t.untyped_storage().data_ptr() not in held
        }
        return results


def put_row(cache: Cache, i: int, codes: Tensor) -> set[tuple[int, ...]]:
    """The shapes that are taken for the codes of row i."""
    cache.begin_row(i)
    with Taken() as taken:
        for j in range(codes.shape[2]):
            cache.logits(j)
            cache.put(j, codes[:, i, j])
    return taken.shapes


def test_for_a_code_nothing_is_taken_but_what_attention_reads_and_the_logits():
    level, maps = Level(K, 4, 5), 3
    prior = opinionated("pixelsnail", level, dtype=torch.float32)
    (codes,), cache = some_codes([level], maps), prior.cache(None, maps=maps)
    for i in range(level.height):
        heads = prior.config.pixelsnail.heads
        read = {(maps, heads, 1, HEAD), (maps, heads, 1)}  # and the logarithms of what it is divided by
        assert put_row(cache, i, codes) <= {(maps, K), *read}
