"""The adversary by itself: what it sees, what moves it, and what it moves."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from vqprior import configs
from vqprior.stage1_vqvae.adversary import Adversary, Patches, hinge, lecam

FLAGS = ["--stage1.adversarial", "0.1", "--stage1.adversary.width", "16", "--data.size", "16", "16"]
FLAGS += ["--stage1.steps", "100", "--stage1.batch_size", "8"]


def adversary(*flags: str) -> Adversary:
    AcceleratorState._reset_state()
    return Adversary(configs.parse(None, [*FLAGS, *flags]), Accelerator(cpu=True))


@pytest.mark.parametrize("size", [(8, 8), (9, 130), (28, 28), (64, 48), (128, 128)])
def test_pictures_of_any_size_are_judged_by_themselves(size):
    patches, x = Patches(1, size, 16), torch.rand(3, 1, *size)
    assert patches(x).shape[:2] == (3, 1) and patches(x).numel() > 3
    assert torch.allclose(patches(x)[1:2], patches(x[1:2]), atol=1e-5)


def test_hinge_and_lecam_are_their_equations():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.0])
    assert hinge(real, fake) == pytest.approx(((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3) / 2)
    averages = torch.tensor([0.5, -0.5])  # of pictures, of reconstructions
    expected = (2.5**2 + 1.0**2 + 0) / 3 + (3.5**2 + 0.5**2 + 0) / 3
    assert lecam(real, fake, averages) == pytest.approx(expected)


def test_neither_gradient_leaks_into_the_other():
    judge, x = adversary(), torch.rand(4, 3, 16, 16)
    judge.begin(1, torch.arange(4))
    x_hat = torch.rand(4, 3, 16, 16, requires_grad=True)
    judge.opinion(x_hat, 0).sum().backward()
    assert x_hat.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in judge.patches.parameters())
    gradient = x_hat.grad.clone()
    judge.learn(x, x_hat.detach(), 0)
    assert torch.equal(x_hat.grad, gradient)
    assert all(weight.grad.abs().sum() > 0 for weight in judge.patches.parameters())


def test_the_decoder_that_heeds_the_opinion_looks_more_like_pictures():
    """The sign: along the gradient of the term, downwards, logits rise."""
    judge = adversary()
    judge.begin(1, torch.arange(4))
    x_hat = torch.rand(4, 3, 16, 16, requires_grad=True)
    before = judge.opinion(x_hat, 0).sum()
    before.backward()
    after = judge.opinion(x_hat.detach() - 1e-2 * x_hat.grad, 0).sum()
    assert after < before and torch.allclose(
        -before, judge.patches(judge.seen(x_hat, 0)).mean((1, 2, 3)).sum()
    )


def test_what_it_sees_is_a_function_of_the_place_alone():
    """Alike for pictures and reconstructions, for any share of the batch and any number of passes."""
    judge, halves = adversary(), adversary("--stage1.accumulate", "2")
    places = torch.arange(40, 48)
    x = torch.rand(8, 3, 16, 16)
    for one in (judge, halves):
        one.begin(6, places)
    whole = judge.seen(x, 0)
    assert torch.equal(whole, torch.cat([halves.seen(part, index) for index, part in enumerate(x.chunk(2))]))
    halves.begin(6, places[4:])
    assert torch.equal(whole[4:6], halves.seen(x[4:6], 0))
    same = x[:1].expand(8, -1, -1, -1)
    assert len({tuple(picture.flatten().tolist()) for picture in judge.seen(same, 0)}) > 4

    # A window of the picture, moved by two pixels at most and mirrored by chance
    grey = torch.full((3, 20, 20), 0.5)
    for picture, seen in zip(x, whole, strict=True):
        canvas = grey.clone()
        canvas[:, 2:18, 2:18] = picture
        windows = [canvas[:, i : i + 16, j : j + 16] for i in range(5) for j in range(5)]
        assert any(torch.equal(seen, w) or torch.equal(seen, w.flip(-1)) for w in windows)


def test_it_is_heard_from_its_start_on_and_learns_before():
    judge = adversary("--stage1.adversary.start", "0.25")
    heard = []
    for step in range(1, 101):
        judge.begin(step, torch.arange(8))
        heard.append(judge.heard)
    assert heard == [False] * 25 + [True] * 75
    judge.begin(1, torch.arange(8))
    before = [weight.clone() for weight in judge.patches.parameters()]
    logits = judge.learn(torch.rand(8, 3, 16, 16), torch.rand(8, 3, 16, 16), 0)
    judge.move(None)
    moved = zip(before, judge.patches.parameters(), strict=True)
    assert all(not torch.equal(old, new) for old, new in moved)
    expected = torch.stack([logits["adversary/logits_real"], logits["adversary/logits_fake"]]) * 0.01
    assert torch.allclose(judge.patches.averages, expected)


def test_an_unsound_step_moves_no_average():
    """As where the host runs ahead and a tensor says so."""
    judge = adversary()
    judge.begin(1, torch.arange(8))
    judge.logits.append(torch.tensor([torch.nan, 1.0]))
    judge.optimizer.optimizer.step = lambda *_: None
    judge.move(torch.tensor(1.0))
    assert torch.equal(judge.patches.averages, torch.zeros(2))


def test_it_learns_to_tell_pictures_from_reconstructions():
    judge, chance = adversary("--stage1.warmup", "1"), torch.Generator().manual_seed(0)
    for step in range(1, 41):
        judge.begin(step, torch.arange(8))
        x = (torch.rand(8, 3, 16, 16, generator=chance) > 0.5).float()
        said = judge.learn(x, torch.nn.functional.avg_pool2d(x, 3, 1, 1), 0)
        judge.move(None)
    assert said["adversary/loss"] < 0.5 and said["adversary/logits_real"] > said["adversary/logits_fake"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--data.size", "4", "4"], "pictures of at least 8 pixels"),
        (["--precision", "fp16"], "take --precision bf16"),
        (["--stage1.adversary.start", "1"], "it is a share in"),
        (["--stage1.adversary.width", "20"], "a multiple of 16"),
    ],
)
def test_settings_that_cannot_work_are_refused(flags, words, capsys):
    with pytest.raises(SystemExit):
        configs.parse(None, [*FLAGS, *flags])
    assert words in " ".join(capsys.readouterr().err.replace("\u2502", " ").split())
