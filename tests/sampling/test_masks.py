import pytest
import torch

from vqprior.configs import UserError
from vqprior.runtime.codes import Level
from vqprior.sampling.masks import GREY, box, fill, half, hidden_codes


def random_mask(height: int, width: int, share: float, seed: int) -> torch.Tensor:
    return torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < share


@pytest.mark.parametrize("share", [0.0, 0.02, 0.2, 1.0])
def test_a_code_is_hidden_where_any_pixel_of_its_square_is(share):
    hidden = random_mask(12, 20, share, 0)
    codes = hidden_codes(hidden, Level(2, 3, 5))
    for i in range(3):
        for j in range(5):
            assert codes[i, j] == bool(hidden[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].any())


def test_all_codes_of_a_position_are_hidden_together():
    hidden = random_mask(12, 20, 0.1, 0)
    one, three = hidden_codes(hidden, Level(2, 3, 5)), hidden_codes(hidden, Level(2, 3, 15, 3))
    assert 0 < one.sum() < 15
    for n in range(3):
        assert torch.equal(three[:, n::3], one)


def test_halves_and_boxes():
    assert half("lower half", 4, 2).sum(1).tolist() == [0, 0, 2, 2]
    # the middle stays
    assert half("upper half", 5, 1).flatten().tolist() == [True, True, False, False, False]
    assert half("right half", 1, 5).flatten().tolist() == [False, False, False, True, True]
    assert half("left half", 1, 4).flatten().tolist() == [True, True, False, False]
    assert box(1, 2, 2, 99, 4, 5).nonzero().tolist() == [[1, 2], [1, 3], [1, 4], [2, 2], [2, 3], [2, 4]]
    with pytest.raises(UserError, match="4 rows and 5 columns"):
        box(4, 0, 1, 1, 4, 5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (16, 16), (1, 9), (33, 20)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.95, 1.0])
def test_filling_keeps_the_known_and_knows_nothing_of_the_hidden(height, width, share):
    rng = torch.Generator().manual_seed(1)
    picture = torch.randint(256, (3, height, width), generator=rng, dtype=torch.uint8)
    other = torch.randint(256, (3, height, width), generator=rng, dtype=torch.uint8)
    hidden = random_mask(height, width, share, 2)
    filled = fill(picture, hidden)
    assert torch.equal(torch.where(hidden, 0, filled), torch.where(hidden, 0, picture))
    assert torch.equal(fill(torch.where(hidden, other, picture), hidden), filled)
    known = picture[:, ~hidden]
    if known.numel():
        assert all(filled[c].min() >= known[c].min() and filled[c].max() <= known[c].max() for c in range(3))
    else:
        assert (filled == GREY).all()


def test_filling_a_plain_picture_leaves_it_plain_and_a_slope_smooth():
    hidden = box(4, 4, 8, 8, 16, 16)
    assert (fill(torch.full((1, 16, 16), 77, dtype=torch.uint8), hidden) == 77).all()
    slope = (torch.arange(16, dtype=torch.uint8) * 10).expand(1, 16, 16)
    assert (fill(slope, hidden).int() - slope.int()).abs().max() <= 40  # a flat grey would miss by 75
