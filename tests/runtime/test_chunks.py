import pytest
import torch

from vqprior.runtime.chunks import chunks, in_chunks
from vqprior.runtime.loader import Share


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("items", [11, torch.tensor([5, 3, 9, 1, 7, 2])])
def test_each_item_is_in_one_chunk_of_one_process_and_all_chunks_have_one_size(processes, items):
    seen = []
    for rank in range(processes):
        for chunk in chunks(items, 4, Share(rank, processes)):
            assert chunk.padded.shape == (4,) and torch.equal(chunk.own(chunk.padded), chunk.items)
            assert (chunk.padded[len(chunk.items) :] == chunk.items[-1]).all()
            seen += chunk.items.tolist()
    expected = items.tolist() if isinstance(items, torch.Tensor) else [*range(items)]
    assert sorted(seen) == sorted(expected)


def test_results_are_joined_without_those_of_padding():
    sizes = []

    def squares(at: torch.Tensor) -> torch.Tensor:
        sizes.append(len(at))
        return at * at

    assert in_chunks(squares, 7, 3).tolist() == [i * i for i in range(7)] and sizes == [3, 3, 3]
    both = in_chunks(lambda at: (at, -at), torch.tensor([4, 2]), 5)
    assert [part.tolist() for part in both] == [[4, 2], [-4, -2]]
