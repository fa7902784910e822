import math
from dataclasses import replace
from itertools import product

import pytest
import torch

from vqprior.configs import Config
from vqprior.configs.schema import Data, GatedPixelCNN, Stage1, Stage2
from vqprior.stage1_vqvae.likelihood import L1, LIKELIHOODS, MIXTURES, MSE, Categorical, Logistic
from vqprior.stage1_vqvae.vqvae import VQVAE
from vqprior.stage2_prior.gated_pixelcnn.model import PixelCNN
from vqprior.stage2_prior.measure import log2_prob


def prediction(
    likelihood, images: int = 1, size: tuple[int, int] = (1, 1), scale: float = 1.5
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(images, likelihood.outputs, *size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("kind", [Categorical, Logistic])
@pytest.mark.parametrize(
    ("channels", "levels", "scale"), [(1, 256, 1.5), (1, 256, 20.0), (3, 7, 1.5), (3, 7, 20.0)]
)
def test_probabilities_sum_to_one(kind, channels, levels, scale):
    """Over every value that a pixel can have; far into the tails too (a scale of 20)."""
    likelihood = kind(channels, levels)
    said = prediction(likelihood, scale=scale)
    pixels = torch.tensor([*product(range(levels), repeat=channels)], dtype=torch.float64) / (levels - 1)
    x = pixels[:, :, None, None]  # [levels ** channels, C, 1, 1]
    nats = likelihood.loss(said.expand(len(x), -1, -1, -1), x) * channels
    assert torch.isfinite(nats).all()
    assert (-nats).exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_probabilities_sum_to_one_in_fp32():
    likelihood = Logistic(1)
    x = (torch.arange(256.0) / 255)[:, None, None, None]
    nats = likelihood.loss(prediction(likelihood, scale=10).float().expand(256, -1, -1, -1), x)
    assert (-nats).exp().sum().item() == pytest.approx(1, abs=1e-4)


def test_a_single_logistic_is_the_difference_of_two_sigmoids():
    """Equation 2 of arXiv 1701.05517, in the plain."""
    likelihood, mean, scale = Logistic(1), 0.1, 0.05
    said = torch.tensor([0.0, mean, math.log(scale)], dtype=torch.float64).repeat(MIXTURES).view(1, -1, 1, 1)
    sigmoid = lambda value: 1 / (1 + math.exp(-value))
    for value in (1, 100, 139, 140, 200):
        centre = 2 * value / 255 - 1
        expected = sigmoid((centre + 1 / 255 - mean) / scale) - sigmoid((centre - 1 / 255 - mean) / scale)
        nats = likelihood.loss(said, torch.full((1, 1, 1, 1), value / 255, dtype=torch.float64))
        assert math.exp(-nats.item()) == pytest.approx(expected, rel=1e-6)
    for value, expected in (
        (0, sigmoid((-254 / 255 - mean) / scale)),
        (255, 1 - sigmoid((254 / 255 - mean) / scale)),
    ):
        nats = likelihood.loss(said, torch.full((1, 1, 1, 1), value / 255, dtype=torch.float64))
        assert math.exp(-nats.item()) == pytest.approx(expected, rel=1e-6)


def test_green_and_blue_move_with_the_channels_before_them():
    """Equation 3: the probability of blue depends on red and green, that of red on neither."""
    likelihood = Logistic(3)
    said = prediction(likelihood, scale=0.5)

    def nats(*pixel: float) -> float:
        return likelihood.loss(said, torch.tensor(pixel, dtype=torch.float64).view(1, 3, 1, 1)).item() * 3

    blue = lambda red, green: nats(red, green, 0.2) - nats(red, green, 0.6)  # log odds of two blues
    assert abs(blue(0.0, 0.4) - blue(1.0, 0.4)) > 1e-3 and abs(blue(0.4, 0.0) - blue(0.4, 1.0)) > 1e-3


@pytest.mark.parametrize("channels", [1, 3])
def test_the_reconstruction_is_the_mean(channels):
    categorical = Categorical(channels)
    said = prediction(categorical, 2, (2, 3))
    p = said.view(2, channels, 256, 2, 3).softmax(2)
    mean = (p * torch.arange(256.0)[:, None, None]).sum(2) / 255
    assert torch.allclose(categorical.image(said), mean, atol=1e-12)

    logistic = Logistic(channels)
    said = prediction(logistic, scale=0.1)
    # narrow: nothing is lost beyond the ends
    said.view(MIXTURES, -1)[:, 1 + channels : 1 + 2 * channels] -= 5
    red = torch.zeros(256, channels, 1, 1, dtype=torch.float64)
    if channels == 1:
        red[:, 0, 0, 0] = torch.arange(256) / 255
        p = (-logistic.loss(said.expand(256, -1, -1, -1), red)).exp()
        assert logistic.image(said).item() == pytest.approx(
            (p * torch.arange(256) / 255).sum().item(), abs=1e-4
        )
    assert ((logistic.image(said) >= 0) & (logistic.image(said) <= 1)).all()


def test_distances_are_means_of_errors():
    x, said = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4) - 0.5
    assert torch.allclose(MSE(3).loss(said, x).mean(), (said + 0.5 - x).square().mean())
    assert torch.allclose(L1(3).loss(said, x).mean(), (said + 0.5 - x).abs().mean())
    assert MSE(3).unit(0.25) == 0.25 and L1(3).unit(0.25) == 0.5  # both errors in standard deviations


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_decoder_of_each_kind_learns_what_its_codes_say(name):
    """Squares of one of two greys, by their codes."""
    torch.manual_seed(0)
    stage1 = Stage1(K=2, D=4, width=16, blocks=0, factor=4, likelihood=name)
    vqvae = VQVAE(replace(Config(), data=Data(size=(8, 8), channels=1), stage1=stage1))
    codes = torch.randint(2, (64, 2, 2))
    x = torch.tensor([40.0, 200.0])[codes].repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None] / 255
    z_q, optimizer = vqvae.embed((codes,)), torch.optim.Adam(vqvae.decoder.parameters(), lr=1e-2)
    losses: list[float] = []  # at this rate they jump up now and then
    for _ in range(150):
        loss = vqvae.likelihood.loss(vqvae.predict(z_q), x).mean()
        loss.backward()
        optimizer.step(), optimizer.zero_grad()
        losses.append(loss.item())
    x_hat = vqvae.decode(z_q)
    assert (x_hat - x).square().mean() < 0.05 * x.var()
    if vqvae.likelihood.is_probability:
        assert min(losses) < 0.6 * math.log(256)


@pytest.mark.parametrize("name", ["categorical", "logistic"])
@pytest.mark.parametrize("codes_per_position", [1, 2])
def test_the_bound_is_its_two_terms_and_no_smaller_than_the_sum_over_all_maps(name, codes_per_position):
    """-log2 p(x | z) - log2 p(z) >= -log2 sum over z' of p(x | z') p(z'), for any z."""
    torch.manual_seed(0)
    K, stage1 = (
        3,
        Stage1(K=3, D=2, width=4, blocks=0, factor=2, likelihood=name, codes_per_position=codes_per_position),
    )
    config = replace(Config(), data=Data(size=(2, 4), channels=1), stage1=stage1)
    vqvae = VQVAE(config).double().eval()
    level = vqvae.levels[0]
    prior = PixelCNN(Stage2(channels=4, layers=2, gated_pixelcnn=GatedPixelCNN(head=4)), level, 0)
    prior = prior.double().eval()
    for parameter in [*vqvae.parameters(), *prior.parameters()]:
        torch.nn.init.normal_(parameter, std=0.7)
    with torch.no_grad():
        x = torch.randint(256, (1, 1, 2, 4)).double() / 255
        places = 2 * codes_per_position
        maps = torch.tensor([*product(range(K), repeat=places)]).view(-1, 1, places)
        prior_bits = -log2_prob(prior, (maps,), None)
        assert (2**-prior_bits).sum().item() == pytest.approx(1, abs=1e-9)
        said = vqvae.predict(vqvae.embed((maps,)))
        # 8 sub-pixels
        decoder_bits = vqvae.likelihood.loss(said, x.expand(len(maps), -1, -1, -1)) * 8 / math.log(2)
        exact = -math.log2((2 ** -(prior_bits + decoder_bits)).sum().item())
        assert (prior_bits + decoder_bits >= exact).all()

        z = vqvae.encode(x)[0].codes
        own = (maps == z).all(dim=(1, 2)).nonzero().item()
        bound = (prior_bits + decoder_bits)[own].item()
        by_hand = -log2_prob(prior, (z,), None).item()
        by_hand += vqvae.likelihood.loss(vqvae(x).prediction, x).item() * 8 / math.log(2)
        assert bound == pytest.approx(by_hand, rel=1e-9) and bound > exact
