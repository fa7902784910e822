"""How much of a GPU `benchmarks.gpu` measures, and in what ways a step is taken."""

import time

from vqprior.runtime.launch import computes_bf16
from vqprior.runtime.processes import device_of_process

SHIPPED = ("mnist", "clothing64")
# How a step may be taken: a name, and the flags
WAYS = {
    "fp32": ("--precision", "no"),
    "tf32": ("--precision", "tf32"),
    "bf16": ("--precision", "bf16"),
    "bf16, recorded": ("--precision", "bf16", "--cuda_graph", "True"),
}
WITHOUT_BF16 = {"fp32": WAYS["fp32"], "fp16": ("--precision", "fp16")}  # T4, V100, Macs

QUICK = "--data.size 16 16 --data.margin 0 --data.crop 0 --inference_batch 4".split()
QUICK_1 = "--stage1.K 8 --stage1.D 4 --stage1.width 8 --stage1.block_width 4 --stage1.batch_size 8".split()
QUICK_2 = "--stage2.channels 8 --stage2.gated_pixelcnn.head 8 --stage2.layers 2 --stage2.batch_size 8".split()


class Settings:
    """How much is measured."""

    def __init__(self, quick: bool, minutes: float):
        self.flags = (*QUICK, *QUICK_1, *QUICK_2) if quick else ()
        self.ways = {"fp32": WAYS["fp32"]} if quick else _ways_here()
        self.seconds, self.rounds = (0.2, 1) if quick else (1.5, 2)
        self.pictures = 48 if quick else 768
        self.batches = (2,) if quick else (16, 64, 256)
        self.repetitions = 2 if quick else 3
        self.models = SHIPPED[:1] if quick else SHIPPED  # whose samples are compared
        self.compared = 64 if quick else 4096  # pictures whose codes are compared
        self.until = time.perf_counter() + 60 * minutes


def _ways_here() -> dict[str, tuple[str, ...]]:
    """The ways that this device is made for."""
    return WAYS if computes_bf16(device_of_process()) else WITHOUT_BF16
