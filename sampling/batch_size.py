"""How many maps are drawn at once where nobody says it (`batch_size auto`).

On a GPU sampling is bound by launches, of which a large batch takes no more than a small one: hundreds of
maps take hardly longer than one. A CPU gains nothing beyond some dozens.
"""

from collections.abc import Sequence

import torch

from vqprior.configs.schema import Method
from vqprior.stage1_vqvae.vqvae import VQVAE
from vqprior.stage2_prior.prior import Prior

LEAST, MOST = 64, 1024  # maps; the least is also what a CPU takes
# of a device's memory: the rest is for weights, workspaces of kernels, and whoever else is there
SHARE = 0.25
NUMBER = 4  # bytes of fp32, and a code's noise takes three such numbers and two of 64 bits
NOISE = 3 * NUMBER + 2 * 8


def automatic(priors: Sequence[Prior], vqvae: VQVAE | None, method: Method = "cached") -> int:
    """A power of two between `LEAST` and `MOST` whose images take at most `SHARE` of the memory of the
    priors' device, drawn in this way; without a VQ-VAE nothing is decoded there."""
    memory = total_memory(priors[0].device)
    if memory is None:
        return LEAST
    fitting = int(SHARE * memory) // bytes_of_image(priors, vqvae, method)
    return max(LEAST, min(MOST, 2 ** max(0, fitting.bit_length() - 1)))


def total_memory(device: torch.device) -> int | None:
    """Bytes that a GPU has; None for a CPU and for devices that do not say."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return torch.mps.recommended_max_memory() if device.type == "mps" else None


def bytes_of_image(priors: Sequence[Prior], vqvae: VQVAE | None, method: Method = "cached") -> int:
    """What drawing the maps of an image takes, guided where the prior can be, and then the larger of
    measuring and decoding them: counted, in fp32."""
    measuring = max(prior.forward_numbers() for prior in priors) * NUMBER
    drawing = _settling if method == "parallel" else _drawing
    return sum(map(drawing, priors)) + max(measuring, _decoding(vqvae) if vqvae else 0)


def _drawing(prior: Prior) -> int:
    """Bytes of drawing a map."""
    guided = 2 if prior.null_label is not None else 1
    return guided * (prior.cached_numbers() + 4 * prior.K) * NUMBER + NOISE * prior.level.width * prior.K


def _settling(prior: Prior) -> int:
    """Bytes of settling a map all places at once: what a recorded round holds, and the noise of the map."""
    guided = 2 if prior.null_label is not None else 1
    return (guided * prior.forward_numbers() + prior.level.places * prior.K) * NUMBER


def _decoding(vqvae: VQVAE) -> int:
    """Bytes of decoding an image: some copies of the larger of the last two activations."""
    height, width = vqvae.image_size
    hidden = vqvae.decoder.up[-1].in_channels * height * width // 4
    return 5 * max(hidden, vqvae.likelihood.outputs * height * width) * NUMBER
