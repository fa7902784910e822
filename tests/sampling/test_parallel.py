"""Maps that settle all at once are those drawn code by code, and finished maps prove themselves."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.launch import ROOT
from tests.sampling.tiny import tiny_generator
from tests.stage2_prior.every_prior import KINDS, opinionated, some_codes
from vqprior import Generator
from vqprior.configs.errors import UserError
from vqprior.runtime.codes import Level
from vqprior.sampling.choice import Choice, Sampling
from vqprior.sampling.networks import Networks
from vqprior.sampling.parallel import settled_maps
from vqprior.sampling.verify import Judged, Verified, verified

METHODS = ("cached", "parallel", "plain")


def networks(kind: str, size: tuple[int, int] = (3, 4), classes: int = 3) -> Networks:
    """A small VQ-VAE with a prior of a kind over its codes; K = 7."""
    vqvae = tiny_generator(size=(4 * size[0], 4 * size[1])).tokenizer
    prior = opinionated(kind, Level(7, *size), classes, dtype=torch.float32, layers=3)
    return Networks(vqvae, prior, "abc"[:classes])


CHOICES = {
    "plain": Choice(),
    "guided": Choice(guidance=2.0),
    "top-k and top-p": Choice(0.8, 4, 0.9),
    "of each map": Choice(
        torch.tensor([1.0, 0.5, 2.0, 0.8, 1.0, 1.2, 0.7]),
        torch.tensor([0, 3, 2, 0, 5, 1, 0]),
        torch.tensor([1.0, 0.9, 1.0, 0.5, 0.8, 1.0, 0.7]),
        torch.tensor([1.0, 2.0, 0.0, 1.0, 3.0, 1.5, 1.0]),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("share_known", [0.0, 0.5])
def test_all_methods_draw_the_same_codes(kind, choice, share_known):
    both, images = networks(kind), torch.arange(7) + 5
    labels = images % 3
    (known,) = some_codes(both.tokenizer.levels, 7)
    keep = torch.rand(known.shape, generator=torch.Generator().manual_seed(2)) < share_known
    known = (torch.where(keep, known, -1),)
    found = {}
    for method in METHODS:
        for batch_size in (3, 7):
            sampling = Sampling(4, choice, batch_size=batch_size, method=method)
            found[method, batch_size] = both.codes(images, labels, sampling, known)[0]
            proof = both.verify((found[method, batch_size],), images, labels, sampling, known)
            assert proof.codes == (~keep).sum() and proof.differing == 0 and proof.nearest_tie > 0
    first = found["plain", 7]
    assert all(torch.equal(codes, first) for codes in found.values()) and len(first.unique()) > 1
    assert torch.equal(first[keep], known[0][keep])


@pytest.mark.parametrize("kind", KINDS)
def test_rounds_are_at_most_the_places_and_one_where_nothing_is_to_be_drawn(kind):
    both, images = networks(kind), torch.arange(5)
    codes = torch.empty(5, 3, 4, dtype=torch.int64)
    sampling = Sampling(batch_size=2, method="parallel")
    taken = settled_maps(both.rounds(0, images, images % 3, sampling), 5, codes)
    assert (taken >= 2).all() and (taken <= 12).all()
    assert torch.equal(codes, both.codes(images, images % 3, Sampling(batch_size=5))[0])
    again = settled_maps(both.rounds(0, images, images % 3, sampling, known=(codes,)), 5, codes.clone())
    assert (again <= 2).all()  # the first one puts the known codes in place of a guess


def test_who_has_settled_makes_room_for_the_next():
    """Each slot works on one map at a time, each map is worked on until it has settled, and no more."""
    both, images = networks("gated_pixelcnn"), torch.arange(6)
    sampling, settled = Sampling(batch_size=2, method="parallel"), []
    for at, guesses, done in both.rounds(0, images, images % 3, sampling):
        busy = at[at >= 0].tolist()
        assert len(at) == len(guesses) == 2 and not {*busy} & {*settled}
        settled += at[done].tolist()
    assert sorted(settled) == [*range(6)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_code_is_found(kind):
    both, images = networks(kind), torch.arange(4)
    sampling = Sampling(choice=Choice(guidance=1.5))
    (codes,) = both.codes(images, images % 3, sampling)
    assert both.verify((codes,), images, images % 3, sampling).differing == 0
    codes[2, 2, 3] = (codes[2, 2, 3] + 1) % 7  # the last place: no other depends on it
    found = both.verify((codes,), images, images % 3, sampling)
    assert found.differing == 1 and found.largest_gap > 0 and found.codes == 48
    with pytest.raises(UserError, match=r"1 of 48 codes differ .* no samples of this prior"):
        found._replace(largest_gap=1.0).refuse("no")


def test_a_tie_within_rounding_is_said_and_allowed():
    judged = judged_by(Choice(), [[2.0, 2.0 - 1e-5, 0.0], [3.0, 1.0, 0.0]])
    codes, drawn = torch.tensor([[[1, 0]]]), torch.ones(1, 1, 2, dtype=torch.bool)
    found = verified(judged, codes, drawn)
    assert (found.codes, found.differing) == (2, 1)
    assert found.nearest_tie == pytest.approx(1e-5, rel=0.1) and found.largest_gap == found.nearest_tie
    found.refuse("no")
    known = verified(judged, torch.tensor([[[2, 0]]]), torch.tensor([[[False, True]]]))
    assert (known.codes, known.differing, known.nearest_tie) == (1, 0, 2.0)
    joined = Verified.joined([found, known])
    assert joined.in_words().startswith("1 of 3 codes differ") and joined.nearest_tie == found.nearest_tie
    assert Verified.of_figures(json.loads(json.dumps(joined.figures()))) == joined


def judged_by(choice: Choice, logits: list[list[float]], noise: list[float] | None = None) -> Judged:
    """What is judged of a row of places with these logits, and the same noise at each."""
    of_row = torch.tensor(logits).T[None, :, None]  # [1, K, 1, w]
    chance = torch.zeros(len(logits[0])) if noise is None else torch.tensor(noise)
    return Judged.of(choice, of_row, lambda i, width: chance.expand(1, width, -1))


def gap(choice: Choice, logits: list[float], noise: list[float], code: int) -> tuple[int, float]:
    """How many codes differ where this one was drawn, and by which gap."""
    drawn = torch.ones(1, 1, 1, dtype=torch.bool)
    found = verified(
        judged_by(choice, [logits], noise), torch.full((1, 1, 1), code), drawn, choice.temperature
    )
    return found.differing, found.largest_gap


def test_what_rounding_moves_over_the_edge_of_what_may_be_drawn_is_a_tie():
    """The noise favours the third code by far; whether it may be drawn is decided by its logit alone."""
    logits, noise = [3.0, 2.0, 1.0, 1.0 - 0.01], [0.0, 0.0, 9.0, 9.5]
    assert gap(Choice(), logits, noise, 2) == (1, pytest.approx(0.49, abs=1e-5))
    # The fourth was drawn, and is kept out by the third alone, which is a hundredth above it
    assert gap(Choice(top_k=3), logits, noise, 3) == (1, pytest.approx(0.01, abs=1e-5))
    # The first was drawn, as if the third had been kept out
    assert gap(Choice(top_k=3), logits, noise, 0) == (1, pytest.approx(0.01, abs=1e-5))
    assert gap(Choice(top_k=2), logits, noise, 2) == (1, pytest.approx(1.0))
    assert gap(Choice(top_k=2), logits, noise, 3) == (1, pytest.approx(1.01))
    # In logits, whatever the temperature
    assert gap(Choice(0.5, top_k=2), logits, noise, 2) == (1, pytest.approx(1.0))
    assert gap(Choice(top_k=2), logits, noise, 0)[0] == 0

    # Of top-p the third is kept out, or let in, where the two likelier ones have nearly p
    p = torch.tensor(logits).softmax(0)[:2].sum().item()
    for limit in (p - 1e-4, p + 1e-4):
        out = limit < p
        drawn = 2 if out else 0
        assert gap(Choice(top_p=limit), logits, noise, drawn) == (1, pytest.approx(0, abs=1e-3))
        assert gap(Choice(top_p=limit), logits, noise, 0 if out else 2) == (0, 0)
    assert gap(Choice(top_p=0.6), logits, noise, 3)[1] > 1


def test_where_one_code_alone_may_be_drawn_there_is_no_tie(finished_run, tmp_path, command):
    flags = ["--images", 3, "--top_k", 1, "--verify", True, "--out", tmp_path / "out"]
    code, printed = command("sample", finished_run, *flags)
    assert code == 0 and "no second best" in printed, printed
    assert json.loads((tmp_path / "out" / "verified.json").read_text())["nearest_tie"] is None


@pytest.mark.parametrize("choice", [Choice(top_k=5), Choice(top_p=0.9), CHOICES["of each map"]])
def test_samples_in_bf16_prove_themselves_under_top_k_and_top_p(choice):
    """Rounding moves codes over the edge in about one of a hundred places."""
    both, images = networks("gated_pixelcnn", (6, 6)), torch.arange(7).repeat(20)
    if isinstance(choice.top_k, torch.Tensor):
        choice = replace(choice, **{name: of_map.repeat(20) for name, of_map in vars(choice).items()})
    numbers = torch.arange(140)
    sampling = Sampling(choice=choice, precision="bf16")
    codes = both.codes(numbers, images % 3, sampling)
    found = both.verify(codes, numbers, images % 3, sampling)
    found.refuse("bf16")
    assert found.codes == 140 * 36 and found.largest_gap < 0.2


def test_two_levels_settle_one_after_the_other():
    levels = Level(7, 2, 2), Level(7, 4, 4)
    priors = [
        opinionated(kind, level, 3, above, dtype=torch.float32)
        for kind, level, above in zip(("transformer", "pixelsnail"), levels, ((), levels[:1]), strict=True)
    ]
    both = networks("transformer", (2, 2))
    both.priors, both._spares = tuple(priors), both._spares * 2
    images = torch.arange(3)
    found = [both.codes(images, images, Sampling(batch_size=2, method=method)) for method in METHODS]
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
    assert both.verify(found[0], images, images, Sampling(batch_size=3)).codes == 3 * 20


def test_the_command_proves_its_samples(finished_run, tmp_path, command):
    flags = ["--images", 7, "--batch_size", 2, "--seed", 3]
    files = {}
    for method in METHODS:
        out = tmp_path / method
        code, printed = command(
            "sample", finished_run, *flags, "--method", method, "--verify", True, "--out", out
        )
        assert code == 0 and "0 of 28 codes differ from those of a full forward" in printed, printed
        files[method] = (out / "samples.npz").read_bytes()
        assert json.loads((out / "verified.json").read_text())["codes"] == 28
    assert len({*files.values()}) == 1
    code, printed = command("sample", finished_run, *flags, "--out", tmp_path / "plain")
    assert not (tmp_path / "plain" / "verified.json").exists()
    generator = Generator.from_run(finished_run)
    expected = generator.sample(7, seed=3)
    assert np.array_equal(generator.sample(7, seed=3, method="parallel", verify=True), expected)
    mask = np.ones((8, 8), bool)
    for method in METHODS:
        done = generator.complete(expected[0], mask, n=3, labels=0, method=method, verify=True)
        assert np.array_equal(done.codes, generator.complete(expected[0], mask, n=3, labels=0).codes)


def test_samples_of_a_spoilt_cache_are_refused_and_nothing_is_lost(
    finished_run, tmp_path, command, monkeypatch
):
    from vqprior.stage2_prior.gated_pixelcnn.cache import CachedPixelCNN

    out = tmp_path / "out"
    assert command("sample", finished_run, "--images", 2, "--out", out)[0] == 0
    before = (out / "samples.npz").read_bytes()
    logits = CachedPixelCNN.logits
    spoilt = lambda self, j: logits(self, j).index_fill(1, torch.tensor(3), 50.0)
    monkeypatch.setattr(CachedPixelCNN, "logits", spoilt)
    code, printed = command("sample", finished_run, "--images", 9, "--verify", True, "--out", out)
    assert code == 2 and "no samples of this prior" in printed, printed
    assert (out / "samples.npz").read_bytes() == before


def test_evaluation_records_it(finished_run, tmp_path, command):
    import shutil

    shutil.copytree(finished_run, tmp_path / "run")
    code, printed = command("evaluate", tmp_path / "run", "--only", "verification", "--images", 5)
    assert code == 0 and "all differences are within rounding" in printed, printed
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["verification"]
    assert found["codes"] == 20 and found["differing"] == 0 and found["sound"] == "yes"


def test_guidance_that_enlarges_rounding_is_no_error():
    """Guided logits g c + (1 - g) u hold the rounding of both."""
    logits, drawn = [2.0, 2.0 + 0.9, 0.0], torch.ones(1, 1, 1, dtype=torch.bool)
    codes = torch.zeros(1, 1, 1, dtype=torch.int64)
    for guidance, expected in ((1.0, 0.9), (2.0, 0.3), (5.0, 0.1), (torch.tensor([5.0]), 0.1), (0.5, 0.9)):
        found = verified(judged_by(Choice(), [logits]), codes, drawn, 1.0, guidance)
        assert found.largest_gap == pytest.approx(expected, abs=1e-6)


def test_logits_that_are_no_numbers_are_no_proof(tmp_path, command):
    """A gap to something that is not finite compares with nothing."""
    torch.manual_seed(0)
    networks = tiny_generator().networks
    images = torch.arange(3)
    codes = networks.codes(images, images % 3, Sampling())
    assert networks.verify(codes, images, images % 3, Sampling()).largest_gap == 0
    torch.nn.init.constant_(networks.priors[0].logits.bias, float("nan"))
    found = networks.verify(codes, images, images % 3, Sampling())
    assert found.differing == found.codes and json.loads(json.dumps(found.figures()))["largest_gap"] is None
    assert Verified.of_figures(found.figures()) == found
    for verdict in (found, Verified.joined([Verified(4, 0, 0.5, 0.0), found])):
        with pytest.raises(UserError, match="no finite numbers, so these are no samples"):
            verdict.refuse("bf16")
    with pytest.raises(UserError, match="no finite numbers"):
        tiny_generator().sample_codes(3, temperature=1e-30, guidance=1e30, verify=True)


def test_one_logit_that_is_no_number_is_found():
    logits = torch.tensor([2.0, 1.0, float("inf")])
    judged = Judged(
        logits[None, None, None],
        torch.ones(1, 1, 1, 3, dtype=torch.bool),
        torch.full((1, 1, 1, 3), torch.inf),
    )
    found = verified(judged, torch.zeros(1, 1, 1, dtype=torch.int64), torch.ones(1, 1, 1, dtype=torch.bool))
    assert found.differing == 1 and found.largest_gap == torch.inf


def test_samples_of_much_guidance_in_bf16_are_proved():
    """Their logits are up to 0.77 from those of a full forward, where rounding alone may move 0.5."""
    generator = Generator.from_run(ROOT / "models" / "mnist")
    assert len(generator.sample_codes(100, guidance=6.0, precision="bf16", verify=True)) == 100
