"""The device that a process computes on, and what fp32 means there: found and set in this one place.

torch is imported when a device is looked for: a command line chooses a word before that.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Precision

if TYPE_CHECKING:
    import torch

AUTO = "auto"
EXPECTED = "cpu, cuda, cuda:1 (the second GPU), mps or auto"
_word = AUTO
_commands = 0  # that run now: one, or several in threads
_choosing = threading.Lock()
_convolving = threading.RLock()  # what fp32 means is one setting of the whole process


def checked(word: str) -> str:
    """A word for a device, as it is.

    Raises:
        UserError: it is none of cpu, cuda, cuda:N, mps and auto.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:(0|[1-9]\d*))?|mps", word):
        raise UserError(f"device is {word!r}; it is one of {EXPECTED}: --device cpu")
    return word


def chosen() -> str:
    """The word that was chosen for the command at hand."""
    return _word


@contextmanager
def choose(word: str) -> Iterator[None]:
    """Inside, commands compute on the device of this word.

    Raises:
        UserError: there is no such word, or a command of another word is running in another thread; whether
            there is such a device is seen when it is looked for.
    """
    global _word, _commands
    with _choosing:
        if _commands and checked(word) != _word:
            raise UserError(
                f"another command of this program is running with --device {_word}, and this one takes "
                f"{word}; give both the same, or wait for the first"
            )
        _word, _commands = checked(word), _commands + 1
    try:
        yield
    finally:
        with _choosing:
            _commands -= 1
            if not _commands:
                _word = AUTO


def launched() -> int:
    """How many processes the launcher started, on all machines together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def find(word: str) -> "torch.device":
    """The device of a word; what fp32 means is settled with it.

    `auto` is a GPU where there is one, but what `accelerate launch --cpu` or ACCELERATE_TORCH_DEVICE say
    comes first.

    Raises:
        UserError: there is no such word, or this machine has no such device.
    """
    import torch

    compute_in_ieee()
    if word == AUTO:
        return _auto()
    device, here = torch.device(checked(word)), _here()
    if word not in here:
        raise UserError(
            f"there is no device {word} here: {_found(here)}. Type --device {here[-1]}, or --device auto"
        )
    return device


def find_for_process(word: str) -> "torch.device":
    """`find`, for one of the launcher's processes, of which each has its own GPU.

    Raises:
        UserError: there is no such word or device, or there is not one for each process.
    """
    device = find(word)
    if launched() > 1:
        _refuse_sharing(device, word)
    return device


def _auto() -> "torch.device":
    import torch
    from accelerate.utils import parse_flag_from_env

    if parse_flag_from_env("ACCELERATE_USE_CPU"):
        return torch.device("cpu")
    if told := os.environ.get("ACCELERATE_TORCH_DEVICE"):
        return _told(torch.device(told))
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    if torch.accelerator.is_available():  # one of another make
        return torch.accelerator.current_accelerator()
    return torch.device("cpu")


def _told(device: "torch.device") -> "torch.device":
    """What ACCELERATE_TORCH_DEVICE says, if it is here; those of other makes are taken as they are."""
    word, here = str(device) if device.type == "cuda" else device.type, _here()
    if device.type in ("cuda", "mps") and word not in here:
        raise UserError(
            f"ACCELERATE_TORCH_DEVICE is {device}: {_found(here)}. Unset it, or type --device {here[-1]}"
        )
    return device


def _here() -> list[str]:
    """The words that name a device of this machine; the last one is always the CPU."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda = ["cuda", *(f"cuda:{index}" for index in range(gpus))] if gpus else []
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def _found(here: list[str]) -> str:
    """What this machine has, in words."""
    import torch

    found = f"this machine has {', '.join(here)}"
    without = here == ["cpu"] and not (torch.version.cuda or torch.version.hip)
    return f"{found}, and torch {torch.__version__} was built without CUDA" if without else found


def _refuse_sharing(device: "torch.device", word: str) -> None:
    """Refuse a device that several processes of this machine would share.

    A process that sees one GPU alone may have been given it by its launcher: `refuse_one_gpu_for_two`
    compares these.
    """
    import torch

    if device.type == "mps":
        raise UserError(
            f"{launched()} processes were started, and a Mac has one GPU, which they cannot share; "
            "start one process, or type --device cpu"
        )
    if device.type != "cuda":
        return
    if word not in (AUTO, "cuda"):
        raise UserError(
            f"--device {word} is for one process, and {launched()} were started, of which each has its own "
            "GPU. Leave --device out; CUDA_VISIBLE_DEVICES=1,2 before the command chooses the GPUs"
        )
    gpus, processes = torch.cuda.device_count(), _processes_here()
    if 1 < gpus < processes:
        raise UserError(
            f"{processes} processes were started on this machine, which has {gpus} GPUs: start {gpus} "
            f"(--nproc_per_node {gpus}), or type --device cpu"
        )


def _processes_here() -> int:
    """How many processes the launcher started on this machine, as far as it says so."""
    return max(int(os.environ.get("LOCAL_WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0)) + 1)


def number_gpu(device: "torch.device") -> None:
    """Put the number of this process's GPU where accelerate and DistributedDataParallel look: in LOCAL_RANK.

    That is 0 where the launcher shows each process one GPU alone (SLURM's --gpus-per-task=1), and otherwise
    the number that was chosen for a single process. Nothing here reads LOCAL_RANK for anything else.
    """
    import torch

    if device.type != "cuda" or "LOCAL_RANK" not in os.environ:
        return
    if torch.cuda.device_count() == 1:
        os.environ["LOCAL_RANK"] = "0"
    elif launched() == 1 and device.index is not None:
        os.environ["LOCAL_RANK"] = str(device.index)


def refuse_one_gpu_for_two(
    store: "torch.distributed.Store", rank: int, processes: int, device: "torch.device"
) -> None:
    """Compare the GPUs of all processes by their own numbers, before NCCL meets two processes on one.

    Raises:
        UserError: two processes have the same one; on each process.
    """
    import torch

    key = "vqprior/gpu/{}".format
    store.set(key(rank), str(torch.cuda.get_device_properties(device).uuid))
    gpus = [store.get(key(other)).decode() for other in range(processes)]
    for second, gpu in enumerate(gpus):
        if (first := gpus.index(gpu)) < second:
            raise UserError(
                f"processes {first} and {second} of {processes} were given the same GPU ({gpu}): start one "
                "process for each GPU (--nproc_per_node), give each its own (SLURM's --gpus-per-task=1), or "
                "type --device cpu"
            )


def name_of(device: "torch.device") -> str:
    """What a device is called: the GPU's own name, else its type."""
    import torch

    real = device.type == "cuda" and torch.cuda.is_initialized()
    return torch.cuda.get_device_name(device) if real else device.type


def compute_in_ieee() -> None:
    """Let fp32 be fp32 in convolutions and products of matrices: cuDNN's convolutions take TF32 otherwise.

    By the names that torch has had since 2.9; asking for `torch.backends.cudnn.allow_tf32` after them is an
    error.
    """
    import torch

    torch.backends.cudnn.conv.fp32_precision = "ieee"
    torch.backends.cuda.matmul.fp32_precision = "ieee"


@contextmanager
def exporting() -> Iterator[None]:
    """Inside, torch.export may ask for `torch.backends.cudnn.allow_tf32`, and convolutions take no TF32."""
    import torch

    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        compute_in_ieee()


def fp32_precision(precision: Precision) -> str:
    """What convolutions of fp32 tensors compute in under a precision: `tf32` or `ieee`."""
    return "tf32" if precision == "tf32" else "ieee"


def refuse_tf32(device: "torch.device", flag: str = "--precision") -> None:
    """Refuse TF32, which a flag asks for, where there is none, with a UserError."""
    import torch

    nvidia = device.type == "cuda" and not torch.version.hip
    if not nvidia or torch.cuda.get_device_capability(device) < (8, 0):
        name = name_of(device)
        raise UserError(
            f"precision tf32 needs an NVIDIA GPU of compute capability 8.0 or newer, and this is {name}; "
            f"take {flag} no (fp32), or --precision auto in training"
        )


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Inside, if it is wanted, torch refuses what has no deterministic form on the device."""
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def convolutions(device: "torch.device", precision: Precision, *, tried: bool = False) -> Iterator[None]:
    """Inside, convolutions of fp32 tensors take TF32 where the precision is `tf32`, else IEEE arithmetic.

    With `tried`, cuDNN tries out which of its kernels is the fastest, which pays in training; elsewhere the
    same call is to take the same kernel every time. That is one setting of the whole process: on a GPU, other
    threads wait here.

    Raises:
        UserError: tf32, on a device that has none.
    """
    import torch

    if precision == "tf32":
        refuse_tf32(device)
    if device.type != "cuda":
        yield
        return
    with _convolving:
        cudnn = torch.backends.cudnn
        before = cudnn.conv.fp32_precision, cudnn.benchmark
        cudnn.conv.fp32_precision, cudnn.benchmark = fp32_precision(precision), tried
        try:
            yield
        finally:
            cudnn.conv.fp32_precision, cudnn.benchmark = before
