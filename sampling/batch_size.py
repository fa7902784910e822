"""How many maps are drawn at once where nobody says it (`batch_size auto`).

On a GPU sampling is bound by launches, of which a large batch takes no more than a small one: hundreds of maps take hardly
longer than one. A CPU gains nothing beyond some dozens.
"""

import torch

from vqprior.stage1_vqvae.vqvae import VQVAE
from vqprior.stage2_prior.pixelcnn import PixelCNN

LEAST, MOST = 64, 1024  # maps; the least is also what a CPU takes
SHARE = 0.25  # of a device's memory: the rest is for weights, workspaces of kernels, and whoever else is there
NUMBER = 4  # bytes of fp32, and a code's noise takes three such numbers and two of 64 bits
NOISE = 3 * NUMBER + 2 * 8


def automatic(prior: PixelCNN, vqvae: VQVAE) -> int:
    """A power of two between `LEAST` and `MOST` whose maps take at most `SHARE` of the memory of the prior's device."""
    memory = total_memory(prior.device)
    if memory is None:
        return LEAST
    fitting = int(SHARE * memory) // bytes_of_map(prior, vqvae)
    return max(LEAST, min(MOST, 2 ** max(0, fitting.bit_length() - 1)))


def total_memory(device: torch.device) -> int | None:
    """Bytes that a GPU has; None for a CPU and for devices that do not say."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return torch.mps.recommended_max_memory() if device.type == "mps" else None


def bytes_of_map(prior: PixelCNN, vqvae: VQVAE) -> int:
    """What drawing a map takes, guided where the prior can be, and then the larger of measuring and decoding it: counted,
    in fp32."""
    height, width = vqvae.map_size
    guided = 2 if prior.null_label is not None else 1
    drawing = guided * (cached_numbers(prior, width) + 4 * prior.K) * NUMBER + NOISE * width * prior.K
    channels = prior.embedding.weight.shape[1]
    measuring = height * width * (12 * channels + 3 * prior.K) * NUMBER  # about what a forward holds at once
    return drawing + max(measuring, _decoding(vqvae))


def cached_numbers(prior: PixelCNN, width: int) -> int:
    """Numbers that the cache of the prior holds for a map w wide, and those that pass through it."""
    channels, numbers = prior.embedding.weight.shape[1], 0
    for layer in prior.layers:
        reach = layer.horizontal.reach
        slots = reach + (not layer.first)
        ring, row, context = slots * (width + 2 * reach), reach + width, 2 * width
        numbers += (ring + row + context + 1 + (4 if prior.classes else 0)) * channels
    return numbers + (1 + 4 * width) * channels  # the last features, and a vertical stack's output and its copy


def _decoding(vqvae: VQVAE) -> int:
    """Bytes of decoding an image: some copies of the larger of the last two activations."""
    height, width = vqvae.image_size
    hidden = vqvae.decoder.up[-1].in_channels * height * width // 4
    return 5 * max(hidden, vqvae.likelihood.outputs * height * width) * NUMBER
