import math

import torch

from runtime.code_maps import CodeSplit
from stage2_prior.measure import bits_per_code, per_position_bits, position_counts, unigram_bits


class Fixed(torch.nn.Module):
    """A prior of known logits, different at each place."""

    def __init__(self, K: int, height: int, width: int):
        super().__init__()
        self.embedding = torch.nn.Embedding(K, 1)
        self.K, self.classes, self.device = K, 0, torch.device("cpu")
        self.table = torch.randn(K, height, width, generator=torch.Generator().manual_seed(0))

    def forward(self, codes, labels=None):
        return self.table.expand(len(codes), -1, -1, -1)


def split(count: int, K: int, seed: int) -> CodeSplit:
    codes = torch.randint(K, (count, 2, 3), generator=torch.Generator().manual_seed(seed))
    return CodeSplit([codes.numpy()], None)


def test_bits_per_code_is_the_mean_over_every_code_once():
    prior, codes = Fixed(5, 2, 3), split(11, 5, 1)
    log_p = prior.table.log_softmax(0)
    picked = [
        log_p[c, i, j] for m in codes.codes(torch.arange(11)) for i, row in enumerate(m.tolist()) for j, c in enumerate(row)
    ]
    expected = -torch.stack(picked).mean().item() / math.log(2)
    for batch in (1, 4, 50):  # the last chunk is padded, and its padding is not counted
        assert abs(bits_per_code(prior, codes, batch=batch, precision="no") - expected) < 1e-5


def counts(maps: list, K: int) -> torch.Tensor:
    return position_counts(CodeSplit([torch.tensor(maps).numpy()], None), K)


def test_position_counts():
    assert counts([[[0, 1]], [[0, 2]], [[1, 2]]], 3).tolist() == [[2, 1, 0], [0, 1, 2]]


def test_unigram_and_per_position_bits():
    train = counts([[[0, 1]], [[0, 1]], [[0, 1]]], 2)  # place 0 is always 0, place 1 always 1
    held_out = counts([[[0, 1]]], 2)
    assert abs(unigram_bits(train, held_out) - 1) < 1e-9
    # at each place: 3 right ones and a pseudo-count of unigram * K = 1 for each code
    assert abs(per_position_bits(train, held_out) + math.log2(4 / 5)) < 1e-9


def test_a_code_never_seen_in_training_costs_finitely_many_bits():
    train, held_out = counts([[[0, 0]]] * 4, 2), counts([[[1, 1]]], 2)
    assert math.isfinite(unigram_bits(train, held_out)) and math.isfinite(per_position_bits(train, held_out))
