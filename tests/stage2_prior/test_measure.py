import math

import pytest
import torch

from vqprior.runtime.code_maps import CodeSplit
from vqprior.runtime.codes import Level
from vqprior.stage2_prior.measure import (
    bits_by_position,
    bits_per_code,
    code_frequencies,
    cross_entropy_bits,
    position_counts,
    posterior_accuracy,
)


class Fixed(torch.nn.Module):
    """A prior of known logits, different at each place."""

    def __init__(self, K: int, height: int, width: int):
        super().__init__()
        self.embedding = torch.nn.Embedding(K, 1)
        self.K, self.classes, self.device = K, 0, torch.device("cpu")
        self.level = Level(K, height, width)
        self.table = torch.randn(K, height, width, generator=torch.Generator().manual_seed(0))

    def forward(self, codes, labels=None, above=()):
        return self.table.expand(len(codes), -1, -1, -1)


def split(count: int, K: int, seed: int) -> CodeSplit:
    codes = torch.randint(K, (count, 2, 3), generator=torch.Generator().manual_seed(seed))
    return CodeSplit([(codes.numpy(),)], None)


def test_bits_per_code_is_the_mean_over_every_code_once():
    prior, codes = Fixed(5, 2, 3), split(11, 5, 1)
    log_p = prior.table.log_softmax(0)
    picked = [
        log_p[c, i, j]
        for m in codes.codes(torch.arange(11))[0]
        for i, row in enumerate(m.tolist())
        for j, c in enumerate(row)
    ]
    expected = -torch.stack(picked).mean().item() / math.log(2)
    for batch in (1, 4, 50):  # the last chunk is padded, and its padding is not counted
        assert abs(bits_per_code(prior, codes, batch=batch, precision="no") - expected) < 1e-5


def counts(maps: list, K: int) -> torch.Tensor:
    array = torch.tensor(maps).numpy()
    return position_counts(CodeSplit([(array,)], None), Level(K, *array.shape[1:]))


def test_position_counts():
    assert counts([[[0, 1]], [[0, 2]], [[1, 2]]], 3).tolist() == [[2, 1, 0], [0, 1, 2]]


def test_unigram_and_per_position_bits():
    train = counts([[[0, 1]], [[0, 1]], [[0, 1]]], 2)  # place 0 is always 0, place 1 always 1
    held_out = counts([[[0, 1]]], 2)
    unigram, per_position = code_frequencies(train)
    assert abs(cross_entropy_bits(held_out, unigram) - 1) < 1e-9
    # at each place: 3 right ones and a pseudo-count of unigram * K = 1 for each code
    assert abs(cross_entropy_bits(held_out, per_position) + math.log2(4 / 5)) < 1e-9


def test_a_code_never_seen_in_training_costs_finitely_many_bits():
    train, held_out = counts([[[0, 0]]] * 4, 2), counts([[[1, 1]]], 2)
    assert all(math.isfinite(cross_entropy_bits(held_out, p)) for p in code_frequencies(train))


def test_bits_by_position_are_those_of_each_place():
    prior, codes = Fixed(5, 2, 3), split(11, 5, 1)
    log_p = prior.table.log_softmax(0)  # [K, h, w]
    expected = -log_p.expand(11, -1, -1, -1).gather(1, codes.codes(torch.arange(11))[0][:, None]).mean(
        (0, 1)
    ) / math.log(2)
    assert torch.allclose(
        bits_by_position(prior, codes, batch=4, precision="no").float(), expected, atol=1e-5
    )


def test_the_posterior_finds_the_label_that_made_the_codes():
    class Told(Fixed):
        """A prior that is almost sure that all codes are the label."""

        def forward(self, codes, labels=None, above=()):
            return 9.0 * torch.nn.functional.one_hot(labels, self.K)[:, :, None, None].expand(-1, -1, 2, 3)

    prior, labels = Told(4, 2, 3), torch.arange(11) % 4
    prior.classes = 4
    maps = CodeSplit([(labels[:, None, None].expand(-1, 2, 3).numpy(),)], labels)
    wrong = CodeSplit([(((labels + 1) % 4)[:, None, None].expand(-1, 2, 3).numpy(),)], labels)
    for batch in (3, 20):
        assert posterior_accuracy((prior,), maps, batch=batch, precision="no", images=7) == 1
        assert posterior_accuracy((prior,), wrong, batch=batch, precision="no", images=7) == 0


def test_a_part_of_a_split_sorted_by_class_is_of_all_classes():
    """As of a folder with a sub-folder for each class: the first maps would be of the first class alone."""

    class Zero(Fixed):
        """A prior that expects code 0, and of labels the first."""

        def forward(self, codes, labels=None, above=()):
            return torch.tensor([1.0, 0.0])[None, :, None, None].expand(len(codes), -1, 2, 3)

    labels = torch.arange(2000) // 1000
    maps = CodeSplit([(labels[:, None, None].expand(-1, 2, 3).numpy(),)], labels)
    prior = Zero(2, 2, 3)
    prior.classes = 2
    whole, part = (bits_per_code(prior, maps, batch=100, precision="no", images=n) for n in (None, 400))
    first = -math.log2(1 / (1 + math.exp(-1)))
    assert (
        whole == pytest.approx(first + 0.5 / math.log(2))
        and part == pytest.approx(whole, abs=0.1)
        and whole > first + 0.5
    )
    assert posterior_accuracy((prior,), maps, batch=100, precision="no", images=400) == pytest.approx(
        0.5, abs=0.1
    )
