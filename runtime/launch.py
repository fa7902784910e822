"""Devices, precision and processes: the thin layer between a training loop and accelerate."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from tqdm import tqdm

from vqprior.configs import Config
from vqprior.configs.errors import UserError
from vqprior.configs.schema import Precision

from . import checkpoint, interrupt
from .checkpoint_writer import Writer
from .processes import agree, on_cpus, on_main

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
CPU_BF16 = ("avx512_bf16", "amx_bf16", "bf16")  # the last one is ARM's


def computes_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bf16; where it has none, bf16 is emulated, some ten times slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # before torch 2.11
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    has = torch.cpu.get_capabilities()
    return any(has.get(name, False) for name in CPU_BF16)


def settled(config: Config, device: torch.device) -> Config:
    """The configuration with a precision of this device in place of `auto`."""
    if config.precision != "auto":
        return config
    return replace(config, precision="bf16" if computes_bf16(device) else "no")


def accelerator_for(config: Config) -> Accelerator:
    """The accelerator of a run: device and process group from the launcher, precision from the configuration.

    Raises:
        UserError: the precision is not to be had on this device.
    """
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    if config.precision == "fp16" and on_cpus():
        raise UserError("precision fp16 needs a GPU, and there is none; on a CPU take --precision auto")
    # A codebook out of step must be seen by tests, not painted over by DDP before each forward.
    kwargs = DistributedDataParallelKwargs(broadcast_buffers=False)
    AcceleratorState._reset_state()  # or a second run in this Python would be refused another precision than the first
    return Accelerator(cpu=on_cpus(), mixed_precision=config.precision, kwargs_handlers=[kwargs])


@contextmanager
def autocast(device: torch.device, precision: Precision) -> Iterator[None]:
    """The autocast that accelerate puts around `forward`, for `encode`, `decode` and sampling."""
    with torch.autocast(device.type, dtype=AUTOCAST.get(precision), enabled=precision != "no"):
        yield


def learning_rate(step: int, *, peak: float, warmup: int, steps: int) -> float:
    """A linear rise over the warm-up, then half a cosine down to zero at the last step: a function of the step."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def adamw(model: nn.Module, *, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays matrices and kernels, and leaves biases and codebooks alone."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in named if p.ndim > 1 and "embedding" not in name]
    others = [p for name, p in named if p.ndim <= 1 or "embedding" in name]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=0.0, betas=(0.9, 0.99))


def count_parameters(module: nn.Module) -> int:
    """How many numbers the gradient moves."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's moments as named tensors: safetensors instead of a pickle."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, values in state.items() for name, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`, into an optimizer over the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


class Guard:
    """Keeps what is not finite out of the weights: no process applies such a step, and ten in a row end the run.

    Args:
        accelerator: of the run.
        writer: of the checkpoints, to name the last one where the run ends.
        state: of a checkpoint, to go on counting.
    """

    PATIENCE = 10

    def __init__(self, accelerator: Accelerator, writer: Writer, state: dict[str, int] | None = None):
        self.accelerator, self.writer = accelerator, writer
        self.skipped, self.in_a_row = (state["skipped"], state["in_a_row"]) if state else (0, 0)

    def state(self) -> dict[str, int]:
        """What a checkpoint keeps."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def judge(self, step: int, losses: Tensor, norm: Tensor) -> tuple[bool, int]:
        """Whether to apply the step, and the signal to stop after it (0 for none): the same on all processes.

        Under fp16 an overflow is no fault while the loss scaler can still lower its scale: the optimizer's own step
        then skips and lowers it.

        Raises:
            UserError: the tenth unsound step in a row.
        """
        sound = bool(torch.isfinite(losses).all() & torch.isfinite(norm))
        unsound, signal = agree(not sound, interrupt.requested())
        if not unsound:
            self.in_a_row = 0
            return True, signal
        scaler = self.accelerator.scaler
        if scaler is None or scaler.get_scale() < 1:
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if self.in_a_row >= self.PATIENCE:
            raise UserError(
                f"loss or gradient was not finite for {self.PATIENCE} steps in a row, up to step {step}; none of them was "
                f"applied, and {self._last_checkpoint()}. Start a new run with a lower learning rate, or with --precision no"
            )
        return False, signal

    def _last_checkpoint(self) -> str:
        """What is left of the run, in words; the same on all processes."""
        self.writer.finish()
        last = on_main(lambda: checkpoint.newest(self.writer.folder))
        return f"the last good checkpoint is {last.path}" if last else "there is no checkpoint yet"


class WeightAverage:
    """Exponential moving average of a module's parameters; buffers are copied as they are.

    The decay warms up as (1 + step) / (10 + step), so that a short run's average is not its first weights.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.tensors = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move the average towards the weights, after the optimizer step with this number."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        parameters = {name for name, _ in module.named_parameters()}
        for name, value in module.state_dict().items():
            mine = self.tensors[name]
            if name in parameters:
                mine.lerp_(value, weight)
            else:
                mine.copy_(value)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over the tensors of a checkpoint."""
        for name, value in tensors.items():
            self.tensors[name].copy_(value)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Inside, the module has the averaged weights."""
        own = {name: value.detach().clone() for name, value in module.state_dict().items()}
        module.load_state_dict(self.tensors)
        try:
            yield
        finally:
            module.load_state_dict(own)


class Progress:
    """A bar on the main process with the loss, images/s over the last interval and the time left."""

    def __init__(self, name: str, *, start: int, stop: int, batch_size: int, active: bool):
        self.bar = tqdm(initial=start, total=stop, desc=name, unit="step", disable=not active, mininterval=1.0)
        self.batch_size, self.steps, self.since = batch_size, 0, time.perf_counter()

    def advance(self) -> None:
        """One step is done."""
        self.steps += 1
        self.bar.update()

    def images_per_second(self) -> float:
        """Images of all processes a second since the last call."""
        now = time.perf_counter()
        rate = self.steps * self.batch_size / max(now - self.since, 1e-9)
        self.steps, self.since = 0, now
        return rate

    def show(self, values: dict[str, Any]) -> None:
        """Put values behind the bar."""
        self.bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()})

    def say(self, text: str) -> None:
        """Print a line without breaking the bar; nothing on other processes than the main one."""
        if not self.bar.disable:
            self.bar.write(text)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.close()
