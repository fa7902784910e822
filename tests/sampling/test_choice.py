"""Settings of their own for each map."""

import pytest
import torch

from tests.sampling.drawing import Fake, drawn
from tests.sampling.test_sampler import P, chi_square
from vqprior.configs import UserError
from vqprior.runtime.codes import Level
from vqprior.sampling.arguments import per_image
from vqprior.sampling.choice import Choice, along, of_maps
from vqprior.sampling.noise import gumbel_noise
from vqprior.sampling.sampler import guide

TEMPERATURES, TOP_K, TOP_P = (
    torch.tensor([1.0, 0.5, 2.0, 1.0]),
    torch.tensor([0, 2, 99, 1]),
    torch.tensor([0.7, 1.0, 0.3, 1.0]),
)


def test_each_row_is_restricted_as_if_it_were_alone():
    logits = torch.randn(4, 11, generator=torch.Generator().manual_seed(0))
    together = Choice(TEMPERATURES, TOP_K, TOP_P).restrict(logits)
    for row in range(4):
        alone = Choice(TEMPERATURES[row].item(), TOP_K[row].item(), TOP_P[row].item()).restrict(
            logits[row : row + 1]
        )
        assert torch.equal(together[row : row + 1], alone)


def test_top_p_of_one_keeps_all_however_the_sum_is_rounded():
    logits = torch.randn(50, 1000, generator=torch.Generator().manual_seed(0)) * 20
    choice = Choice(top_p=torch.full((50,), 1.0).index_fill(0, torch.tensor([0]), 0.5))
    assert choice.restrict(logits)[1:].isfinite().all()


def test_frequencies_of_maps_with_settings_of_their_own():
    """One fake prior without memory, four settings in turn: each map's codes follow its own, by
    chi-square."""

    def prior(codes: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        return P.log()[None, :, None, None].expand(len(codes), -1, *codes.shape[1:])

    settings = [
        (dict(top_k=2), [4 / 7, 3 / 7, 0, 0]),
        (dict(top_p=0.75), [4 / 9, 3 / 9, 2 / 9, 0]),
        (dict(temperature=0.5, top_k=3), [16 / 29, 9 / 29, 4 / 29, 0]),
        (dict(), [0.4, 0.3, 0.2, 0.1]),
    ]
    maps = 4000
    kind = torch.arange(maps) % len(settings)
    default = dict(temperature=1.0, top_k=0, top_p=1.0)
    each = {
        name: torch.tensor([given.get(name, value) for given, _ in settings])[kind]
        for name, value in default.items()
    }
    noise = gumbel_noise(0, torch.arange(maps), 4)
    codes = drawn(Fake(prior, Level(4, 2, 3)), None, noise, Choice(**each), maps=maps)
    for number, (_, expected) in enumerate(settings):
        # once in 1000 seeds
        assert chi_square(codes[kind == number].flatten(), torch.tensor(expected)) < 16.3


def test_a_setting_that_some_maps_share_becomes_a_number():
    cpu = torch.device("cpu")
    assert of_maps(TOP_P, torch.tensor([1, 3]), cpu) == 1.0
    assert torch.equal(of_maps(TOP_P, torch.tensor([0, 3]), cpu), torch.tensor([0.7, 1.0]))
    assert of_maps(0.3, torch.tensor([0]), cpu) == 0.3
    choice = Choice(TEMPERATURES, TOP_K, 0.5).of_maps(torch.tensor([3, 3]), cpu)
    assert (choice.temperature, choice.top_k, choice.top_p) == (1.0, 1, 0.5)
    assert along(TOP_P, torch.zeros(4, 5, 2, 2)).shape == (4, 1, 1, 1)


def test_what_users_give_for_each_image():
    assert per_image("top_k", 3, 5) == 3 and isinstance(per_image("top_k", torch.tensor(3), 5), int)
    assert torch.equal(per_image("guidance", [1, 2], 2), torch.tensor([1.0, 2.0]))
    assert per_image("top_k", (0, 4), 2).dtype == torch.int64


@pytest.mark.parametrize(
    "given", [[1.0, 2.0], [], "high", [[1.0]] * 3, [1.0, None, 2.0], [[1], [2, 3], [4]], True]
)
def test_what_is_no_number_for_each_image_is_refused(given):
    with pytest.raises(UserError, match="for 3 images; it takes one number, or one for each image"):
        per_image("temperature", given, 3)


def test_a_share_of_a_code_is_refused():
    with pytest.raises(UserError, match="whole number"):
        per_image("top_k", [1.5, 2.0], 2)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (dict(temperature=torch.tensor([1.0, 0.0])), r"temperature is 0; it is from 1e-30 to 1e\+30"),
        (dict(temperature=1e-38), "temperature is 1e-38; it is from 1e-30"),  # by it logits are infinite
        (dict(temperature=float("nan")), "temperature is nan; it takes finite numbers"),
        (dict(top_k=torch.tensor([3, -1])), "top_k is -1"),
        (dict(top_p=torch.tensor([0.5, 1.5])), r"top_p is 1.5; it is from 1e-30 to 1 \(1 keeps all codes\)"),
        (dict(guidance=3e38), r"guidance is 3e\+38; it is from 0 to 1e\+30"),  # and by it
    ],
)
def test_numbers_out_of_range_are_refused(wrong, words):
    with pytest.raises(UserError, match=words):
        Choice(**wrong)


def test_at_the_ends_of_the_ranges_the_likeliest_code_is_taken():
    """Below them logits are infinite, and the first of these was taken."""
    logits = torch.linspace(-1e3, 1e3, 7)[None]
    for choice in (Choice(temperature=1e-30), Choice(top_p=1e-30), Choice(top_k=1)):
        assert choice(logits, torch.zeros(1, 7)) == 6
    guided = guide(logits, torch.zeros(1, 7), 1e30)
    assert guided.isfinite().all() and Choice()(guided, torch.zeros(1, 7)) == 6
