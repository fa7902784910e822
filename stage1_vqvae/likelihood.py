"""What the decoder's output says of the image: p(x | z), or a distance where no probability is claimed.

    name          output channels for C of an image   loss, per sub-pixel                         nats
    mse           C                                   (x - x_hat)^2                               no
    l1            C                                   |x - x_hat|                                 no
    categorical   256 C                               -log softmax at the value of x              yes
    logistic      10 (1 + 2 C + C (C - 1) / 2)        -log of a mixture of discretised logistics  yes

With a probability over the 256 values a sub-pixel can have, -log2 p(x | z) - log2 p(z) bounds -log2 p(x) from
above for any codes z: these are the bits/dim that `evaluate` reports.

The mixture is that of PixelCNN++ (Salimans et al. 2017, https://arxiv.org/abs/1701.05517), Equations 1 to 3.
What is done differently here: the probability of a bin is computed without an approximation in the tails,
so that it sums to one.

Legend: B images, C channels, H x W their size, P output channels of the decoder, L values of a sub-pixel, M
logistics.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from vqprior.configs.schema import Likelihood as Name

LEVELS = 256  # values of a sub-pixel: 0 to 255
MIXTURES = 10  # logistics of a pixel, as in PixelCNN++
LEAST_LOG_SCALE = -7.0  # of a logistic on [-1, 1]: an eighth of a bin


class Likelihood(ABC):
    """How a prediction of the decoder, [B, P, H, W], is to be read, and what it costs.

    Args:
        channels: C, of the images.
        levels: L, values that a sub-pixel can have, spread evenly over [0, 1].
    """

    is_probability = True  # whether `loss` is -log p(x | z), in nats

    def __init__(self, channels: int, levels: int = LEVELS):
        self.channels, self.levels = channels, levels

    @property
    def outputs(self) -> int:
        """P, the channels of a prediction."""
        return self.channels

    @abstractmethod
    def image(self, prediction: Tensor) -> Tensor:
        """The reconstruction x_hat [B, C, H, W], about [0, 1]: the mean, where there is a distribution."""

    @abstractmethod
    def loss(self, prediction: Tensor, x: Tensor) -> Tensor:
        """[B] mean over the sub-pixels of each image x [B, C, H, W] in [0, 1]."""

    def unit(self, variance: float) -> float:
        """What the loss is divided by in training, so that beta means the same for data of any variance on
        [0, 1]."""
        return 1.0

    def _values(self, x: Tensor) -> Tensor:
        """Images in [0, 1] -> the numbers 0 to L-1 of their values."""
        return (x * (self.levels - 1)).round().long()


class MSE(Likelihood):
    """Squared error; the prediction is the image less a half."""

    is_probability = False

    def image(self, prediction: Tensor) -> Tensor:
        return prediction + 0.5

    def loss(self, prediction: Tensor, x: Tensor) -> Tensor:
        return (self.image(prediction) - x).square().mean((1, 2, 3))

    def unit(self, variance: float) -> float:
        return variance


class L1(MSE):
    """Absolute error."""

    def loss(self, prediction: Tensor, x: Tensor) -> Tensor:
        return (self.image(prediction) - x).abs().mean((1, 2, 3))

    def unit(self, variance: float) -> float:
        return variance**0.5


class Categorical(Likelihood):
    """A softmax over the L values, for each sub-pixel on its own."""

    @property
    def outputs(self) -> int:
        return self.channels * self.levels

    def _logits(self, prediction: Tensor) -> Tensor:
        return rearrange(prediction, "b (c l) h w -> b l c h w", c=self.channels)

    def image(self, prediction: Tensor) -> Tensor:
        values = torch.linspace(0, 1, self.levels, device=prediction.device, dtype=prediction.dtype)
        return torch.einsum("b l c h w, l -> b c h w", self._logits(prediction).softmax(1), values)

    def loss(self, prediction: Tensor, x: Tensor) -> Tensor:
        # One row a sub-pixel: the kernel for maps has no deterministic form on CUDA
        logits, values = rearrange(self._logits(prediction), "b l c h w -> (b c h w) l"), self._values(x)
        nats = F.cross_entropy(logits, values.flatten(), reduction="none")
        return nats.view(len(x), -1).mean(1)


class Logistic(Likelihood):
    """A mixture of M logistics for each pixel, each cut into L bins; their means for green and blue move with
    the channels before (Equation 3)."""

    @property
    def outputs(self) -> int:
        return MIXTURES * (1 + 2 * self.channels + self._pairs)

    @property
    def _pairs(self) -> int:
        """Pairs of a channel and one before it."""
        return self.channels * (self.channels - 1) // 2

    def _parameters(self, prediction: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """log weights [B, M, H, W]; means and log scales [B, M, C, H, W] on [-1, 1]; coefficients [B, M,
        pairs, H, W]."""
        C = self.channels
        parts = rearrange(prediction, "b (m p) h w -> b m p h w", m=MIXTURES)
        weights, means, scales, coefficients = parts.split([1, C, C, self._pairs], dim=2)
        return weights[:, :, 0].log_softmax(1), means, scales.clamp(min=LEAST_LOG_SCALE), coefficients.tanh()

    def _means(self, means: Tensor, coefficients: Tensor, x: Tensor | None = None) -> Tensor:
        """Means [B, M, C, H, W], moved by the channels before in x [B, 1, C, H, W] on [-1, 1], or by those
        channels' means."""
        moved: list[Tensor] = []
        for channel in range(self.channels):
            mean = means[:, :, channel]
            for earlier in range(channel):
                seen = moved[earlier].clamp(-1, 1) if x is None else x[:, :, earlier]
                mean = mean + coefficients[:, :, channel * (channel - 1) // 2 + earlier] * seen
            moved.append(mean)
        return torch.stack(moved, dim=2)

    def image(self, prediction: Tensor) -> Tensor:
        weights, means, _, coefficients = self._parameters(prediction)
        expected = self._means(means, coefficients).clamp(-1, 1)
        mean = reduce(weights.exp()[:, :, None] * expected, "b m c h w -> b c h w", "sum")
        return (mean + 1) / 2

    def loss(self, prediction: Tensor, x: Tensor) -> Tensor:
        weights, means, scales, coefficients = self._parameters(prediction)
        values = self._values(x)[:, None]  # [B, 1, C, H, W]
        half = 1 / (self.levels - 1)  # of a bin on [-1, 1]
        centre = values.to(means.dtype) * (2 * half) - 1
        distance, inverse = centre - self._means(means, coefficients, centre), torch.exp(-scales)
        upper, lower = (distance + half) * inverse, (distance - half) * inverse
        # log(sigmoid(u) - sigmoid(l)) = log sigmoid(u) + log sigmoid(-l) + log(1 - exp(l - u)), exact in the
        # tails too; the first and the last bin reach to infinity
        first, last = values == 0, values == self.levels - 1
        log_p = torch.where(last, 0, F.logsigmoid(upper)) + torch.where(first, 0, F.logsigmoid(-lower))
        log_p = log_p + torch.where(first | last, 0, torch.log(-torch.expm1(-2 * half * inverse)))
        log_p = torch.logsumexp(weights + log_p.sum(2), dim=1)  # [B, H, W]
        return -log_p.mean((1, 2)) / self.channels


LIKELIHOODS: dict[Name, type[Likelihood]] = {
    "mse": MSE,
    "l1": L1,
    "categorical": Categorical,
    "logistic": Logistic,
}
