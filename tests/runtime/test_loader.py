from dataclasses import replace

import numpy as np
import pytest
import torch

from vqprior.configs import UserError
from vqprior.runtime.code_maps import CodeSplit
from vqprior.runtime.data import load
from vqprior.runtime.loader import Order, Share, batch_positions, code_batches, image_batches

CPU = torch.device("cpu")


def test_one_pass_of_the_order_has_each_item_once_and_passes_differ():
    order = Order(10, seed=3)
    first, second = order.at(torch.arange(10)), order.at(torch.arange(10, 20))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(10))
    assert first.tolist() != second.tolist()


def test_a_batch_is_a_function_of_seed_and_step():
    whole = torch.cat([Order(7, seed=1).at(batch_positions(t, 4, slice(0, 4))) for t in range(5)])
    order = Order(7, seed=1)
    for t in (4, 1, 3):  # in any order, from any start, over the seams of passes
        assert torch.equal(order.at(batch_positions(t, 4, slice(0, 4))), whole[4 * t : 4 * t + 4])
    assert not torch.equal(Order(7, seed=2).at(torch.arange(7)), whole[:7])


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_slices_of_the_processes_make_up_the_global_batch(tiny, processes):
    data = replace(tiny.data, flip=True, margin=2)
    split = load(data).train
    how = dict(seed=5, batch_size=8, start=3, stop=6)
    whole = list(image_batches(split, CPU, part=Share().slice(8), **how))
    shares = [
        list(image_batches(split, CPU, part=Share(r, processes).slice(8), **how)) for r in range(processes)
    ]
    for t, batch in enumerate(whole):
        assert torch.equal(batch.images, torch.cat([share[t].images for share in shares]))
        assert torch.equal(batch.labels, torch.cat([share[t].labels for share in shares]))


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_slices_of_code_maps_make_up_the_global_batch(processes):
    split = CodeSplit([(np.arange(44).reshape(11, 2, 2),)], torch.arange(11))
    how = dict(seed=5, batch_size=8, start=3, stop=6)
    whole = list(code_batches(split, CPU, part=Share().slice(8), **how))
    shares = [
        list(code_batches(split, CPU, part=Share(r, processes).slice(8), **how)) for r in range(processes)
    ]
    for t, ((codes,), labels, positions) in enumerate(whole):
        parts = [(share[t].codes[0], share[t].labels, share[t].positions) for share in shares]
        for tensor, of_shares in zip((codes, labels, positions), zip(*parts, strict=True), strict=True):
            assert torch.equal(tensor, torch.cat(of_shares)) and len(tensor) == 8
        assert torch.equal(labels * 4, codes[:, 0, 0])


def test_streamed_batches_are_those_held_in_memory(tiny):
    held = load(replace(tiny.data, flip=True)).train
    streamed = load(replace(tiny.data, flip=True, memory_gb=0, workers=2)).train
    assert held.held is not None and streamed.held is None
    how = dict(seed=0, batch_size=6, start=1, stop=5, part=slice(0, 6))
    for a, b in zip(image_batches(held, CPU, **how), image_batches(streamed, CPU, **how), strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)


def test_a_batch_that_does_not_divide_is_refused_with_one_that_does():
    with pytest.raises(UserError, match="take 12"):
        Share(0, 4).slice(10)
    with pytest.raises(UserError, match="multiples of 6"):
        Share(0, 2).slice(10, accumulate=3)
