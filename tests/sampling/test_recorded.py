"""Rows and rounds that are recorded once and replayed, with a stand-in for CUDA's graphs."""

import copy
import pickle
from dataclasses import replace
from itertools import combinations, product

import pytest
import torch

from tests.recorder import Recorder
from tests.sampling.test_parallel import networks
from tests.stage2_prior.every_prior import KINDS, opinionated, some_codes
from vqprior.runtime import graph
from vqprior.runtime.codes import Level
from vqprior.sampling.choice import Choice, Sampling
from vqprior.sampling.decoding import Imported
from vqprior.sampling.networks import Networks
from vqprior.sampling.noise import gumbel_noise
from vqprior.sampling.sampler import map_of
from vqprior.sampling.workspace import Workspace
from vqprior.stage2_prior.prior import FullForwards

K, MAPS, ABOVE, LEVEL = 6, 3, Level(5, 2, 3), Level(6, 4, 6)
GUIDANCE, TOP_K = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0, 2, 3])


@pytest.fixture
def recordings(monkeypatch):
    """The CPU is treated like a CUDA device; a list of what was recorded together."""
    made = []

    def record_in_turn(works, device):
        replays = []
        for work in works:
            with Recorder() as recorder:
                work()
            replays.append(recorder.replay)
        made.append(replays)
        return replays

    monkeypatch.setattr(graph, "can_record", lambda device: True)
    monkeypatch.setattr(graph, "record_in_turn", record_in_turn)
    return made


def plainly(monkeypatch, work):
    """What the work gives where nothing is recorded."""
    with monkeypatch.context() as patch:
        patch.setattr(graph, "can_record", lambda device: False)
        return work()


def codes_of(workspace, prior, call, choice, known=None, maps=MAPS):
    """Maps [B, h, w] whose randomness, labels and codes above are a function of the call."""
    images = torch.arange(maps) + 10 * call
    (above,) = some_codes([ABOVE], maps, seed=call)
    noise = gumbel_noise(call, images, K, workspace.noise)
    given = (prior, (images + call) % 3, (above,), noise, choice, known)
    return map_of(workspace.draw(*given, maps=maps))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_map", [False, True])
@pytest.mark.parametrize("some_are_known", [False, True])
def test_replayed_rows_are_the_rows(kind, per_map, some_are_known, recordings, monkeypatch):
    """For other seeds, labels, codes above, known codes, settings and weights than those of the recording."""
    prior, workspace = opinionated(kind, LEVEL, 3, [ABOVE]), Workspace()
    for call in range(5):
        if call == 3:
            for parameter in prior.parameters():
                parameter.mul_(0.8)
        choice = Choice(temperature=0.9, top_k=4, guidance=1.5)
        if per_map:
            choice = Choice(guidance=GUIDANCE + call, top_k=TOP_K, top_p=torch.tensor([1.0, 0.9, 0.5]))
        chance = torch.Generator().manual_seed(call)
        hidden = torch.rand(MAPS, *LEVEL.size, generator=chance) < 0.6
        given = (prior, call, choice, torch.where(hidden, -1, 2) if some_are_known else None)
        expected = plainly(monkeypatch, lambda given=given: codes_of(Workspace(), *given))
        assert torch.equal(codes_of(workspace, *given), expected)
        assert len(recordings) == (0 if call == 0 else 1)
    assert len(recordings[0]) == LEVEL.height


def test_numbers_for_all_maps_lie_in_the_recording(recordings, monkeypatch):
    """So other ones are recorded anew, and so are maps of which codes are known."""
    prior, workspace = opinionated("gated_pixelcnn", LEVEL, 3, [ABOVE]), Workspace()
    known = torch.full((MAPS, *LEVEL.size), -1).index_fill_(1, torch.tensor([2]), 3)
    ways = [(Choice(), None), (Choice(temperature=9.0), None), (Choice(top_k=1), None), (Choice(), known)]
    drawn = [plainly(monkeypatch, lambda way=way: codes_of(Workspace(), prior, 4, *way)) for way in ways]
    assert not any(torch.equal(one, other) for one, other in combinations(drawn, 2))
    for number, (way, expected) in enumerate(zip(ways, drawn, strict=True), 1):
        for _ in range(3):
            assert torch.equal(codes_of(workspace, prior, 4, *way), expected)
        assert len(recordings) == number


def test_the_arithmetic_lies_in_the_recording(recordings):
    prior, workspace = opinionated("gated_pixelcnn", LEVEL, 3, [ABOVE]), Workspace()
    counts, before = [], torch.backends.cudnn.conv.fp32_precision
    try:
        for arithmetic in ("ieee", "ieee", "ieee", "tf32", "tf32", "tf32"):
            torch.backends.cudnn.conv.fp32_precision = arithmetic
            codes_of(workspace, prior, 4, Choice())
            counts.append(len(recordings))
    finally:
        torch.backends.cudnn.conv.fp32_precision = before
    assert counts == [0, 1, 1, 1, 2, 2]


def test_another_number_of_maps_takes_memory_of_its_own(recordings, monkeypatch):
    prior, workspace = opinionated("transformer", LEVEL, 3, [ABOVE]), Workspace()
    for call, maps in enumerate((3, 3, 3, 5, 5, 5, 3, 3, 3)):
        given = (prior, call, Choice(), None, maps)
        expected = plainly(monkeypatch, lambda given=given: codes_of(Workspace(), *given))
        assert torch.equal(codes_of(workspace, *given), expected)
    assert len(recordings) == 3


def test_maps_that_were_left_half_drawn_do_not_matter(recordings):
    prior, workspace = opinionated("pixelsnail", LEVEL, 3, [ABOVE]), Workspace()
    expected = codes_of(workspace, prior, 7, Choice())
    for _ in range(2):
        noise = gumbel_noise(0, torch.arange(3), K, workspace.noise)
        next(workspace.draw(prior, torch.arange(3), some_codes([ABOVE], 3), noise, Choice(), maps=3))
    assert torch.equal(codes_of(workspace, prior, 7, Choice()), expected)


def test_a_prior_without_a_cache_of_its_own_is_not_recorded(recordings, monkeypatch):
    """Full forwards hold labels and codes above, which are others each time."""
    prior, workspace = opinionated("gated_pixelcnn", LEVEL, 3, [ABOVE]), Workspace()
    monkeypatch.setattr(type(prior), "CACHE", FullForwards)
    for call in range(3):
        given = (prior, call, Choice())
        expected = plainly(monkeypatch, lambda given=given: codes_of(Workspace(), *given))
        assert torch.equal(codes_of(workspace, *given), expected)
    assert not recordings


def two_levels(kind: str) -> Networks:
    """Priors of two levels, and no pictures."""
    coarse, fine = opinionated(kind, ABOVE, 3), opinionated(kind, LEVEL, 3, [ABOVE])
    return Networks(Imported([ABOVE, LEVEL]), [coarse, fine], "abc")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_map", [False, True])
def test_replayed_rounds_settle_the_same_maps(kind, per_map, recordings, monkeypatch):
    """More maps than slots, of other seeds, labels, codes above, known codes and settings than those of the
    recording."""
    both = two_levels(kind)
    for call in range(4):
        images = torch.arange(5) + 10 * call
        choice = Choice(temperature=0.9, top_k=4, guidance=1.5)
        if per_map:
            choice = Choice(guidance=torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5]) + call, top_k=torch.arange(5))
        chance = torch.Generator().manual_seed(call)
        hidden = [torch.rand(5, *level.size, generator=chance) < 0.6 for level in (ABOVE, LEVEL)]
        known = tuple(torch.where(of_level, -1, 2) for of_level in hidden) if call == 2 else None
        given = (images, (images + call) % 3, Sampling(call, choice, batch_size=2, method="parallel"), known)
        expected = plainly(monkeypatch, lambda given=given: two_levels(kind).codes(*given))
        assert all(map(torch.equal, both.codes(*given), expected))
    assert [len(replays) for replays in recordings] == [1, 1]  # a round of each level


def test_rounds_of_other_weights_or_precision_are_recorded_anew(recordings, monkeypatch):
    """A recorded round reads the prior's own weights where they were."""
    both, images = two_levels("gated_pixelcnn"), torch.arange(4)
    sampling = Sampling(method="parallel", batch_size=4)
    draw = lambda how=sampling: both.codes(images, images % 3, how)
    before = draw()
    for prior in both.priors:
        prior.logits.weight = torch.nn.Parameter(-prior.logits.weight, requires_grad=False)
    expected = plainly(monkeypatch, draw)
    assert all(map(torch.equal, draw(), expected)) and not torch.equal(expected[1], before[1])
    count = len(recordings)
    draw(replace(sampling, precision="bf16"))
    assert len(recordings) > count


def test_copies_and_pickles_of_networks_take_memory_of_their_own(recordings):
    both, images = two_levels("pixelsnail"), torch.arange(4)
    ways = [Sampling(method=method, batch_size=4) for method in ("cached", "parallel")]
    expected, *_ = (both.codes(images, images % 3, way) for way in ways for _ in range(3))
    others = copy.deepcopy(both), pickle.loads(pickle.dumps(both))
    for other, way in product(others, ways):
        assert all(map(torch.equal, other.codes(images, images % 3, way), expected))


def test_what_is_recorded_has_its_memory_to_itself(recordings):
    """Other work in the same workspace takes memory of other sizes, and gives back what was there."""
    prior, workspace = opinionated("gated_pixelcnn", LEVEL, 3, [ABOVE]), Workspace()
    expected, *_ = (codes_of(workspace, prior, 4, Choice()) for _ in range(3))
    recorded = workspace._recorded
    memory = lambda: [recorded.row, recorded.noise.hashed, *vars(recorded.noise.memory).values()]
    before = [tensor.data_ptr() for tensor in memory()]
    gumbel_noise(0, torch.arange(7), K, workspace.noise)(0, LEVEL.width)
    assert recorded.noise.memory is not workspace.noise
    assert recorded.row.data_ptr() != workspace.rows.data_ptr()
    assert [tensor.data_ptr() for tensor in memory()] == before
    assert torch.equal(codes_of(workspace, prior, 4, Choice()), expected)


def test_what_cannot_be_recorded_is_drawn_all_the_same(recordings, monkeypatch, capsys):
    def refuses(works, device):
        works = [*works]
        for number, work in enumerate(works):
            work()  # as far as it goes
            if number == min(1, len(works) - 1):
                raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(graph, "record_in_turn", refuses)
    prior, workspace = opinionated("gated_pixelcnn", LEVEL, 3, [ABOVE]), Workspace()
    first, *others = (codes_of(workspace, prior, 4, Choice()) for _ in range(4))
    assert all(torch.equal(first, other) for other in others)
    (said,) = capsys.readouterr().out.splitlines()
    assert said.endswith("kernel by kernel: operation not permitted when stream is capturing")
    both, images = networks("gated_pixelcnn"), torch.arange(4)
    drawn = [both.codes(images, images % 3, Sampling(method=way))[0] for way in ("parallel", "cached")]
    assert torch.equal(*drawn) and "rounds cannot be recorded" in capsys.readouterr().out


def test_rounds_that_do_nothing_end(recordings, monkeypatch):
    """Graphs of another device than the prior's would be replayed for ever."""
    monkeypatch.setattr(graph, "record_in_turn", lambda works, device: [lambda: None for _ in works])
    both, images = networks("gated_pixelcnn"), torch.arange(2)
    with pytest.raises(RuntimeError, match="maps of 12 places have not settled in 13 rounds"):
        both.codes(images, images % 3, Sampling(method="parallel"))


def test_few_large_maps_settle_in_parallel_on_a_gpu_alone(recordings, monkeypatch):
    """`auto` goes by what was measured there."""
    small, large = networks("gated_pixelcnn"), networks("gated_pixelcnn", size=(16, 16))
    method = lambda of, images, **how: of.resolved(Sampling(**how), images).method
    assert (method(large, 16), method(large, 17)) == ("parallel", "cached")
    assert method(large, 1000, batch_size=4) == "parallel" and method(small, 1) == "cached"
    assert method(small, 99, method="parallel") == "parallel" and method(large, 1, method="plain") == "plain"
    assert plainly(monkeypatch, lambda: method(large, 1)) == "cached"
