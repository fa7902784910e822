"""Devices, precision and processes: the thin layer between a training loop and accelerate."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import nn

from vqprior.configs import Config
from vqprior.configs.errors import UserError
from vqprior.configs.schema import Precision

from . import devices
from .casting import CastTogether
from .processes import device_of_process, on_cpus

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
CPU_BF16 = ("avx512_bf16", "amx_bf16", "bf16")  # the last one is ARM's


def computes_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bf16; where it has none, bf16 is emulated, some ten times slower
    than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # before torch 2.11
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    has = torch.cpu.get_capabilities()
    return any(has.get(name, False) for name in CPU_BF16)


def settled(config: Config, device: torch.device) -> Config:
    """The configuration with a precision of this device in place of `auto`.

    Raises:
        UserError: tf32, on a device that has none.
    """
    if config.precision == "tf32":
        devices.refuse_tf32(device)
    if config.sample.precision == "tf32":
        devices.refuse_tf32(device, "--sample.precision")
    if config.precision != "auto":
        return config
    return replace(config, precision="bf16" if computes_bf16(device) else "no")


def accelerator_for(config: Config) -> Accelerator:
    """The accelerator of a run: device and process group from the launcher, precision from the configuration.

    Raises:
        UserError: the precision is not to be had on this device.
    """
    if config.precision == "tf32":
        devices.refuse_tf32(device_of_process())
    if config.precision == "fp16" and on_cpus():
        raise UserError("precision fp16 needs a GPU, and this is a CPU; take --precision auto")
    # A codebook out of step must be seen by tests, not painted over by DDP before each forward. torch 2.14
    # calls the name deprecated, and in the same words says to keep it where the beginning is meant, too.
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    kwargs = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    # or a second run in this Python would be refused another precision than the first
    AcceleratorState._reset_state()
    low = config.precision if config.precision in AUTOCAST else "no"
    return Accelerator(cpu=on_cpus(), mixed_precision=low, kwargs_handlers=[kwargs])


@contextmanager
def autocast(device: torch.device, precision: Precision, *, cached: bool = True) -> Iterator[None]:
    """The autocast that accelerate puts around `forward`, for `encode`, `decode` and sampling; fp32 is IEEE
    but for `tf32`.

    Args:
        cached: whether cast weights are kept until the outermost autocast ends.

    Raises:
        UserError: tf32, on a device that has none.
    """
    how = dict(dtype=AUTOCAST.get(precision), enabled=precision in AUTOCAST, cache_enabled=cached)
    low = torch.autocast(device.type, **how)
    with devices.convolutions(device, precision), low:
        yield


@contextmanager
def usual_device() -> Iterator[None]:
    """Inside, tensors that are made without a device are on the CPU, whatever `torch.set_default_device` or
    `with torch.device(...)` of a caller say."""
    if torch.get_default_device().type == "cpu":  # a mode would be asked in each operation
        yield
        return
    with torch.device("cpu"):
        yield


def network_of(model: nn.Module, config: Config) -> nn.Module:
    """What a training loop calls and accelerate prepares: the model, compiled or with its weights cast
    together."""
    if config.compile:
        return torch.compile(model)
    return CastTogether(model, AUTOCAST[config.precision]) if config.precision in AUTOCAST else model


def count_parameters(module: nn.Module) -> int:
    """How many numbers the gradient moves."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
