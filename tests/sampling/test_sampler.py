import pytest
import torch

from tests.sampling.drawing import Fake, drawn
from vqprior.runtime.codes import Level
from vqprior.sampling.choice import Choice
from vqprior.sampling.noise import gumbel_noise

P = torch.tensor([0.4, 0.3, 0.2, 0.1])


def draws(count: int, logits: torch.Tensor, choice: Choice, seed: int = 0) -> torch.Tensor:
    noise = gumbel_noise(seed, torch.arange(count), len(logits))(0, 1)[:, 0]
    return choice(logits.expand(count, -1), noise)


def chi_square(codes: torch.Tensor, p: torch.Tensor) -> float:
    counts, expected = torch.bincount(codes, minlength=len(p)).double(), p.double() * len(codes)
    assert counts[p == 0].sum() == 0, "a code was drawn that may not be"
    return ((counts - expected) ** 2 / expected)[p > 0].sum().item()


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(), P),
        (Choice(temperature=0.5), P**2 / (P**2).sum()),
        (Choice(top_k=2), torch.tensor([4 / 7, 3 / 7, 0, 0])),
        (Choice(top_k=1), torch.tensor([1.0, 0, 0, 0])),
        (Choice(top_p=0.65), torch.tensor([4 / 7, 3 / 7, 0, 0])),
        (Choice(top_p=0.75), torch.tensor([4 / 9, 3 / 9, 2 / 9, 0])),
        (Choice(top_p=1e-6), torch.tensor([1.0, 0, 0, 0])),
        (Choice(top_k=3, top_p=0.8), torch.tensor([4 / 9, 3 / 9, 2 / 9, 0])),  # 0.4 + 0.3 of 0.9 is below 0.8
        (
            Choice(top_k=3, top_p=0.7),
            torch.tensor([4 / 7, 3 / 7, 0, 0]),
        ),  # p counts after top-k: 0.7 of 0.9 is 0.78
        (Choice(temperature=0.5, top_p=0.8), torch.tensor([16 / 25, 9 / 25, 0, 0])),  # after the temperature
    ],
)
def test_known_probabilities_give_known_frequencies(choice, expected):
    codes = draws(20_000, P.log(), choice)
    assert chi_square(codes, expected) < 16.3  # 3 degrees of freedom: exceeded once in 1000 seeds


def test_top_k_of_all_codes_changes_nothing():
    logits = torch.randn(5, 4)
    assert torch.equal(Choice(top_k=4).restrict(logits), Choice(top_k=99).restrict(logits))
    assert torch.equal(Choice(top_k=4).restrict(logits), logits)


def test_noise_of_an_image_is_a_function_of_seed_image_and_place():
    rows = [gumbel_noise(1, torch.tensor([3, 8]), 5)(i, 4) for i in range(3)]
    alone = gumbel_noise(1, torch.tensor([8]), 5)
    assert torch.equal(alone(2, 4)[0], rows[2][1])  # without having drawn rows 0 and 1
    assert len({value.item() for row in rows for value in row.flatten()}) == 3 * 2 * 4 * 5
    assert not torch.equal(gumbel_noise(2, torch.tensor([8]), 5)(2, 4), alone(2, 4))


def test_noise_is_gumbel():
    noise = gumbel_noise(0, torch.arange(2000), 50)(0, 1).flatten().double()
    for quantile in (0.001, 0.1, 0.5, 0.9, 0.999):
        x = -(-torch.tensor(quantile, dtype=torch.float64).log()).log()  # the inverse of exp(-exp(-x))
        share = (noise < x).double().mean().item()
        assert abs(share - quantile) < 4 * (quantile * (1 - quantile) / len(noise)) ** 0.5
    assert noise.isfinite().all()


def chain(codes: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
    """A fake prior: each code is the one before in raster order plus 1, mod 4; the first is the label."""
    flat = codes.flatten(1)
    first = labels if labels is not None else torch.zeros(len(codes), dtype=torch.int64)
    following = torch.cat([first[:, None], (flat[:, :-1] + 1) % 4], dim=1)
    return 60.0 * torch.nn.functional.one_hot(following, 4).permute(0, 2, 1).reshape(
        len(codes), 4, *codes.shape[1:]
    )


def sample(prior, images: torch.Tensor, labels=None, **choice) -> torch.Tensor:
    noise = gumbel_noise(0, images, 4)
    fake = Fake(prior, Level(4, 3, 5))
    return drawn(fake, labels, noise, Choice(**choice), maps=len(images))


def test_codes_are_drawn_in_raster_order_given_the_earlier_ones():
    codes = sample(chain, torch.arange(3), torch.tensor([0, 1, 2]))
    assert torch.equal(codes, (torch.arange(15).view(1, 3, 5) + torch.tensor([0, 1, 2])[:, None, None]) % 4)


def noisy(codes: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
    """A fake prior without much opinion, that looks at the code before."""
    return chain(codes, labels) / 60


def test_image_i_is_image_i_in_any_batch():
    whole = sample(noisy, torch.arange(7))
    for part in (torch.tensor([4]), torch.tensor([6, 0]), torch.arange(3)):
        assert torch.equal(sample(noisy, part), whole[part])
    assert len({tuple(codes.flatten().tolist()) for codes in whole}) == 7


def test_frequencies_of_the_second_code_are_those_of_the_fake_prior():
    """Transitions of the chain over 4000 maps: p(next = previous + 1) = e / (e + 3)."""
    codes = sample(noisy, torch.arange(4000))
    steps = (codes[:, 0, 1:] - codes[:, 0, :-1]) % 4
    e = torch.tensor(1.0).exp()
    expected = torch.tensor([1, e, 1, 1]) / (e + 3)
    assert chi_square(steps.flatten(), expected) < 16.3
