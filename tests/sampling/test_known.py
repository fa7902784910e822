"""Sampling around codes that are known already."""

import pytest
import torch

from tests.sampling.drawing import Fake, drawn
from tests.sampling.test_sampler import chain, chi_square, noisy
from vqprior.configs.schema import GatedPixelCNN, Stage2
from vqprior.runtime.codes import Level
from vqprior.sampling.choice import Choice
from vqprior.sampling.noise import gumbel_noise
from vqprior.stage2_prior.gated_pixelcnn.model import PixelCNN

K, MAPS, HEIGHT, WIDTH = 9, 6, 5, 7


def opinionated(dtype: torch.dtype = torch.float64) -> PixelCNN:
    torch.manual_seed(0)
    model = (
        PixelCNN(
            Stage2(channels=8, layers=3, gated_pixelcnn=GatedPixelCNN(head=12), label_dropout=0.1),
            Level(K, HEIGHT, WIDTH),
            3,
        )
        .to(dtype)
        .eval()
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.requires_grad_(False)


def some_known(share: float, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    codes = torch.randint(K, (MAPS, HEIGHT, WIDTH), generator=rng)
    return codes.masked_fill(torch.rand(codes.shape, generator=rng) >= share, -1)


LABELS, NOISE = torch.arange(MAPS) % 3, gumbel_noise(4, torch.arange(MAPS), K)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_cached_and_full_forwards_agree_and_keep_what_is_known(dtype, share):
    model, known = opinionated(dtype), some_known(share)
    plain = drawn(model, LABELS, NOISE, Choice(), maps=MAPS, known=known, in_full=True)
    assert torch.equal(drawn(model, LABELS, NOISE, Choice(), maps=MAPS, known=known), plain)
    assert torch.equal(plain[known >= 0], known[known >= 0])
    assert plain.min() >= 0
    free = drawn(model, LABELS, NOISE, Choice(), maps=MAPS)
    assert torch.equal(plain, free) == (share == 0)


def test_they_agree_with_guidance_and_choice_of_each_map():
    model, known = opinionated(), some_known(0.4)
    guidance = torch.tensor([1.0, 2.5, 0.0, 1.0, 4.0, 1.5], dtype=torch.float64)
    temperature = torch.tensor([1.0, 0.5, 1.0, 2.0, 0.9, 1.0], dtype=torch.float64)
    choice = Choice(
        temperature, torch.tensor([0, 3, 2, 0, 5, 0]), torch.tensor([1.0, 1.0, 0.9, 0.5, 0.8, 1.0]), guidance
    )
    plain = drawn(model, LABELS, NOISE, choice, maps=MAPS, known=known, in_full=True)
    cached = drawn(model, LABELS, NOISE, choice, maps=MAPS, known=known)
    assert torch.equal(cached, plain)
    # And each map is what it is under its own numbers alone
    for i in range(MAPS):
        one = slice(i, i + 1)
        own = Choice(*(setting[i].item() for setting in vars(choice).values()))
        noise = gumbel_noise(4, torch.tensor([i]), K)
        assert torch.equal(drawn(model, LABELS[one], noise, own, maps=1, known=known[one])[0], cached[i])


def test_codes_are_drawn_given_the_known_ones_before_them():
    """The fake prior counts on from the code before: so does a drawn code after a known one."""
    known = torch.full((1, 3, 5), -1)
    known[0, 1, 2], known[0, 2, 4] = 3, 1
    noise = gumbel_noise(0, torch.arange(1), 4)
    codes = drawn(Fake(chain, Level(4, 3, 5)), torch.tensor([1]), noise, Choice(), maps=1, known=known)
    assert codes.flatten().tolist() == [1, 2, 3, 0, 1, 2, 3, 3, 0, 1, 2, 3, 0, 1, 1]


def test_frequencies_given_a_known_code():
    """p(next = known + 1) = e / (e + 3) under the fake prior."""
    known = torch.full((3000, 1, 2), -1)
    known[:, 0, 0] = 2
    noise = gumbel_noise(0, torch.arange(3000), 4)
    codes = drawn(Fake(noisy, Level(4, 1, 2)), None, noise, Choice(), maps=3000, known=known)
    e = torch.tensor(1.0).exp()
    assert chi_square(codes[:, 0, 1], torch.tensor([1, 1, 1, e]) / (e + 3)) < 16.3


def test_known_codes_that_come_later_are_not_seen():
    """What a raster-order model cannot do, and docs/completion.md says so."""
    model, known = opinionated(), torch.full((MAPS, HEIGHT, WIDTH), -1)
    draw = lambda: drawn(model, LABELS, NOISE, Choice(), maps=MAPS, known=known)
    free = draw()
    known[:, 3, 2] = (free[:, 3, 2] + 1) % K
    around = draw()
    assert torch.equal(around.flatten(1)[:, : 3 * WIDTH + 2], free.flatten(1)[:, : 3 * WIDTH + 2])
    assert not torch.equal(around.flatten(1)[:, 3 * WIDTH + 3 :], free.flatten(1)[:, 3 * WIDTH + 3 :])
