"""The cached sampler gives what the full forward gives."""

import pytest
import torch

from tests.sampling.drawing import drawn
from vqprior.configs.schema import GatedPixelCNN, Stage2
from vqprior.runtime.codes import Level
from vqprior.sampling.choice import Choice
from vqprior.sampling.noise import gumbel_noise
from vqprior.sampling.sampler import guide
from vqprior.sampling.workspace import Workspace
from vqprior.stage2_prior.gated_pixelcnn.model import PixelCNN

K = 11


def prior(
    kernel: int,
    classes: int,
    dtype: torch.dtype,
    size: tuple[int, int],
    *,
    layers: int = 4,
    codes_per_position: int = 1,
) -> PixelCNN:
    """A prior with opinions: random weights, biases too."""
    torch.manual_seed(0)
    config = Stage2(
        channels=8, layers=layers, gated_pixelcnn=GatedPixelCNN(kernel=kernel, head=12), label_dropout=0
    )
    model = PixelCNN(config, Level(K, *size, codes_per_position), classes).to(dtype).eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, std=1.0 if "logits" in name else 0.3)
    return model.requires_grad_(False)


def both(model: PixelCNN, maps: int, choice: Choice) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.arange(maps)
    labels = images % model.classes if model.classes else None
    noise = gumbel_noise(3, images, K)
    plain = drawn(model, labels, noise, choice, maps=maps, in_full=True)
    return plain, drawn(model, labels, noise, choice, maps=maps)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 9), (8, 8), (1, 6), (6, 1)])
def test_codes_equal_those_of_full_forwards(dtype, kernel, height, width):
    for maps, classes in ((1, 0), (5, 3)):
        plain, cached = both(prior(kernel, classes, dtype, (height, width)), maps, Choice())
        assert torch.equal(plain, cached)
        assert len(plain.unique()) > 1 or plain.numel() < 9


@pytest.mark.parametrize(
    "choice",
    [
        Choice(temperature=0.5),
        Choice(top_k=3),
        Choice(top_p=0.7),
        Choice(temperature=1.3, top_k=6, top_p=0.9),
    ],
)
def test_under_every_choice(choice):
    plain, cached = both(prior(5, 3, torch.float64, (5, 9)), 33, choice)
    assert torch.equal(plain, cached)


@pytest.mark.parametrize("codes_per_position", [2, 3])
def test_with_several_codes_a_position(codes_per_position):
    model = prior(3, 3, torch.float64, (4, 12), codes_per_position=codes_per_position)
    plain, cached = both(model, 5, Choice())
    assert torch.equal(plain, cached)
    assert not torch.equal(cached, both(prior(3, 3, torch.float64, (4, 12)), 5, Choice())[1])


def test_a_large_map():
    plain, cached = both(prior(3, 0, torch.float32, (32, 32), layers=2), 2, Choice())
    assert torch.equal(plain, cached)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_workspace_that_was_used_gives_what_a_fresh_one_gives(classes, dtype):
    """Bit for bit, for other labels, known codes, numbers and weights than before, in the same memory."""
    model, workspace = prior(5, classes, torch.float32, (6, 7)), Workspace()
    memory = None
    for call in range(6):
        maps = 5 if call != 4 else 3
        images = torch.arange(maps) + 7 * call
        labels = (images + call) % classes if classes else None
        noise = gumbel_noise(call, images, K, workspace.noise)
        known = torch.where(torch.rand(maps, 6, 7) < 0.3, 2, -1) if call % 2 else None
        with torch.no_grad():
            model.embedding.weight.mul_(0.9)
        how = dict(maps=maps, dtype=dtype, known=known)
        used = drawn(model, labels, noise, Choice(), workspace=workspace, **how)
        fresh = drawn(model, labels, gumbel_noise(call, images, K), Choice(), **how)
        assert torch.equal(used, fresh)
        rings = [layer.vertical.ring.data_ptr() for layer in workspace._cache.layers]
        held = [*rings, workspace.noise.bits.data_ptr()]
        assert memory == held or call in (0, 4, 5)
        memory = held


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_logits_agree(dtype, tolerance):
    model = prior(5, 3, dtype, (6, 7))
    codes, labels = torch.randint(K, (4, 6, 7)), torch.tensor([0, 2, 1, 1])
    expected = model(codes, labels)
    cache = model.cache(labels, maps=4)
    for i in range(6):
        cache.begin_row(i)
        for j in range(7):
            assert (cache.logits(j) - expected[:, :, i, j]).abs().max() < tolerance
            cache.put(j, codes[:, i, j])


def test_guided_codes_equal_those_of_guided_full_forwards():
    torch.manual_seed(0)
    model = (
        PixelCNN(
            Stage2(channels=8, layers=4, gated_pixelcnn=GatedPixelCNN(head=12), label_dropout=0.1),
            Level(K, 5, 6),
            3,
        )
        .double()
        .eval()
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    labels, noise = torch.tensor([0, 1, 2, 2]), gumbel_noise(0, torch.arange(4), K)
    choice = Choice(top_k=5, guidance=2.5)
    plain = drawn(model, labels, noise, choice, maps=4, in_full=True)
    cached = drawn(model, labels, noise, choice, maps=4)
    assert torch.equal(plain, cached)
    assert not torch.equal(cached, drawn(model, labels, noise, Choice(top_k=5), maps=4))
    # Full forwards of both, mixed by hand
    logits = [
        model(plain, given)[:, :, 2, 3] for given in (labels, torch.full_like(labels, model.null_label))
    ]
    assert torch.equal(choice(guide(*logits, 2.5), noise(2, 6)[:, 3]), plain[:, 2, 3])


def test_guidance_of_one_is_the_conditional_and_of_zero_the_unconditional_prior():
    conditional, unconditional = torch.randn(3, 5), torch.randn(3, 5)
    assert torch.allclose(guide(conditional, unconditional, 1.0), conditional)
    assert torch.equal(guide(conditional, unconditional, 0.0), unconditional)
