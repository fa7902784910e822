"""Rows that are recorded once and replayed, with a stand-in for CUDA's graphs that records what the CPU
does."""

import pytest
import torch

from tests.recorder import Recorder
from tests.sampling.test_parallel import networks
from tests.stage2_prior.every_prior import KINDS, opinionated, some_codes
from vqprior.runtime import graph
from vqprior.runtime.codes import Level
from vqprior.sampling.choice import Choice, Sampling
from vqprior.sampling.noise import gumbel_noise
from vqprior.sampling.sampler import map_of
from vqprior.sampling.workspace import Workspace

K, MAPS, ABOVE, LEVEL = 6, 3, Level(5, 2, 3), Level(6, 4, 6)
GUIDANCE, TOP_K = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0, 2, 3])


@pytest.fixture
def recordings(monkeypatch):
    """The CPU is treated like a CUDA device; a list of what was recorded."""
    made = []

    def record_in_turn(works):
        for work in works:
            with Recorder() as recorder:
                work()
            made.append(recorder.replay)
        return made[-LEVEL.height :]

    monkeypatch.setattr(graph, "records", lambda device: True)
    monkeypatch.setattr(graph, "record_in_turn", record_in_turn)
    return made


def codes_of(workspace, prior, call, choice, *, known=None):
    """Maps [B, h, w] whose randomness, labels and codes above are a function of the call."""
    images = torch.arange(MAPS) + 10 * call
    (above,) = some_codes([ABOVE], MAPS, seed=call)
    noise = gumbel_noise(call, images, K, workspace.noise)
    given = (prior, (images + call) % 3, (above,), noise, choice, known)
    return map_of(workspace.draw(*given, maps=MAPS))


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
        known = torch.where(hidden, -1, 2) if some_are_known else None
        replayed = codes_of(workspace, prior, call, choice, known=known)
        with monkeypatch.context() as patch:
            patch.setattr(graph, "records", lambda device: False)
            expected = codes_of(Workspace(), prior, call, choice, known=known)
        assert torch.equal(replayed, expected)
        assert len(recordings) == (0 if call == 0 else LEVEL.height)


def test_what_is_no_input_is_recorded_anew(recordings):
    """Numbers for all maps lie in the recording; so does the arithmetic of convolutions, and another size
    takes memory of its own."""
    prior, workspace = opinionated("gated_pixelcnn", LEVEL, 3, [ABOVE]), Workspace()

    def drawn(choice, times=1):
        for _ in range(times):
            found = codes_of(workspace, prior, 4, choice)
        return found

    first = drawn(Choice(), 3)
    colder = drawn(Choice(temperature=0.1), 3)
    assert not torch.equal(first, colder)
    assert len(recordings) == 2 * LEVEL.height
    assert torch.equal(drawn(Choice()), first)
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    try:
        drawn(Choice(), 2)
    finally:
        torch.backends.cudnn.conv.fp32_precision = "ieee"
    assert len(recordings) == 3 * LEVEL.height


def test_maps_that_were_left_half_drawn_do_not_matter(recordings):
    prior, workspace = opinionated("pixelsnail", LEVEL, 3, [ABOVE]), Workspace()
    expected = codes_of(workspace, prior, 7, Choice())
    for _ in range(2):
        next(
            workspace.draw(
                prior,
                torch.arange(3),
                some_codes([ABOVE], 3),
                gumbel_noise(0, torch.arange(3), K, workspace.noise),
                Choice(),
                maps=3,
            )
        )
    assert torch.equal(codes_of(workspace, prior, 7, Choice()), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_map", [False, True])
def test_replayed_rounds_settle_the_same_maps(kind, per_map, recordings, monkeypatch):
    """More maps than slots, of other seeds, labels, known codes and settings than those of the recording."""
    both = networks(kind)
    for call in range(4):
        images = torch.arange(5) + 10 * call
        choice = Choice(temperature=0.9, top_k=4, guidance=1.5)
        if per_map:
            choice = Choice(guidance=torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5]) + call, top_k=torch.arange(5))
        chance = torch.Generator().manual_seed(call)
        known = (torch.where(torch.rand(5, 3, 4, generator=chance) < 0.6, -1, 2),) if call == 2 else None
        sampling = Sampling(call, choice, batch_size=2, method="parallel")
        given = (images, (images + call) % 3, sampling, known)
        (replayed,) = both.codes(*given)
        with monkeypatch.context() as patch:
            patch.setattr(graph, "records", lambda device: False)
            (expected,) = networks(kind).codes(*given)
        assert torch.equal(replayed, expected)
    assert len(recordings) == 1


def test_what_is_recorded_has_its_memory_to_itself(recordings):
    """Other work in the same workspace takes memory of other sizes, and gives back what was there."""
    prior, workspace = opinionated("gated_pixelcnn", LEVEL, 3, [ABOVE]), Workspace()
    expected, *_ = (codes_of(workspace, prior, 4, Choice()) for _ in range(3))
    recorded = workspace._recorded
    held = [recorded.row, recorded.noise.hashed, *vars(recorded.noise.memory).values()]
    before = [tensor.data_ptr() for tensor in held]
    gumbel_noise(0, torch.arange(7), K, workspace.noise)(0, LEVEL.width)
    assert (
        recorded.noise.memory is not workspace.noise and recorded.row.data_ptr() != workspace.rows.data_ptr()
    )
    now = [recorded.row, recorded.noise.hashed, *vars(recorded.noise.memory).values()]
    assert [tensor.data_ptr() for tensor in now] == before
    assert torch.equal(codes_of(workspace, prior, 4, Choice()), expected)


def test_what_cannot_be_recorded_is_drawn_all_the_same(recordings, monkeypatch, capsys):
    def refuses(works):
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


def test_few_large_maps_settle_in_parallel_on_a_gpu_alone(recordings, monkeypatch):
    """`auto` goes by what was measured there."""
    small, large = networks("gated_pixelcnn"), networks("gated_pixelcnn", size=(16, 16))
    assert large._in_parallel(Sampling(), 16) and not large._in_parallel(Sampling(), 17)
    assert large._in_parallel(Sampling(batch_size=4), 1000)
    assert not small._in_parallel(Sampling(), 1) and small._in_parallel(Sampling(method="parallel"), 99)
    assert not large._in_parallel(Sampling(method="cached"), 1)
    monkeypatch.setattr(graph, "records", lambda device: False)
    assert not large._in_parallel(Sampling(), 1)
