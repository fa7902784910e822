"""Several processes: who this one is, sums over all, and work that the main one does for the others."""

import atexit
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import ParamSpec, TypeVar

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list, gather, gather_object, reduce
from torch import Tensor

from vqprior.configs.errors import UserError, refused_by_system

from . import devices, interrupt
from .interrupt import Interrupted
from .loader import Share
from .progress import opened
from .rendezvous import fresh_store

# The others wait while the main process downloads and decodes a data set: longer than the usual ten minutes
PATIENCE = timedelta(hours=4)

Item = TypeVar("Item")
Result = TypeVar("Result")
Given = ParamSpec("Given")

_begun_with = devices.AUTO  # the word for the device
_failed = False  # whether a command ended with another code than 0


def note_end(code: int) -> None:
    """Remember how a command ended: after a failure the other processes are not waited for."""
    global _failed
    _failed = code != 0


def on_cpus() -> bool:
    """Whether the processes compute on CPUs; accelerate sees several of them there only when it is told
    so."""
    return device_of_process().type == "cpu"


def state() -> PartialState:
    """accelerate's view of the processes, made by the first call and taken down when Python ends.

    A command with another --device than the one before it makes it anew.

    Raises:
        UserError: there is no such device, or not one for each process.
    """
    if not PartialState._shared_state:
        _begin()
    elif devices.chosen() != _begun_with:
        _change()
    return PartialState()


def _begin() -> None:
    """Meet the other processes, if there are any, and take this one's device."""
    global _begun_with
    word = devices.chosen()
    device = devices.find_for_process(word)
    devices.number_gpu(device)
    made = PartialState(cpu=device.type == "cpu", timeout=PATIENCE, **fresh_store(PATIENCE))
    _begun_with = word
    atexit.unregister(_leave)
    atexit.register(_leave)
    if device.type == "cpu" or made.num_processes == 1:
        made.device = device  # not what ACCELERATE_TORCH_DEVICE says, nor the launcher's number
    elif device.type == "cuda":
        store = torch.distributed.distributed_c10d._get_default_store()
        devices.refuse_one_gpu_for_two(store, made.process_index, made.num_processes, made.device)
    # streams and events are those of the current device
    if device.type == "cuda" and made.num_processes == 1:
        torch.cuda.set_device(device.index or 0)


def _change() -> None:
    """Take another device, for the next command of this Python; several processes stay where they have
    met."""
    global _begun_with
    there, word = PartialState(), devices.chosen()
    device = there.device
    if there.num_processes > 1:
        if word not in (devices.AUTO, device.type):
            raise UserError(
                f"these {there.num_processes} processes have met on {device.type}, and --device is {word} "
                f"now; type --device {device.type}, or start them anew"
            )
    elif devices.find_for_process(word) != device:
        AcceleratorState._reset_state(reset_partial_state=True)
        if device.index:  # GPU 1 and on are not where the next command looks
            torch.cuda.set_device(0)
        _begin()
    _begun_with = word


def _leave() -> None:
    """Let go of the other processes, unless this one failed: the group's end would wait for them in vain."""
    failed = _failed or getattr(sys, "last_value", None) is not None
    if torch.distributed.is_initialized() and not failed:
        torch.distributed.destroy_process_group()


def share_of_process() -> Share:
    """Which process of how many this is."""
    return Share(state().process_index, state().num_processes)


def device_of_process() -> torch.device:
    """The device of the command at hand: the chosen one, else a GPU where there is one; each process has its
    own."""
    return state().device


def device_for(word: torch.device | str | int | None) -> torch.device:
    """The device that a call names: in the words of --device, None for `auto`, a number for a GPU; one of
    torch's is taken as it is.

    Raises:
        UserError: there is no such word, or no such device here.
    """
    if isinstance(word, torch.device):
        devices.compute_in_ieee()
        return word
    if word in (None, devices.AUTO):
        return device_of_process()
    return devices.find(f"cuda:{word}" if isinstance(word, int) else str(word))


def is_main() -> bool:
    """Whether this is the process that writes files, curves and messages."""
    return state().is_main_process


def say(text: str) -> None:
    """Print a line, once over all processes."""
    if is_main():
        print(text, flush=True)


def sum_tensor(tensor: Tensor) -> Tensor:
    """Sum of a tensor over all processes, the same on each."""
    return reduce(tensor, reduction="sum")


def gather_tensor(tensor: Tensor) -> Tensor:
    """A CPU tensor [...] of each process -> those of all P, [P, ...], on the CPU of each."""
    return gather(tensor[None].to(device_of_process())).cpu() if state().num_processes > 1 else tensor[None]


def sum_numbers(numbers: Iterable[float]) -> list[float]:
    """Sums over all processes of numbers, in fp64 where the device has it."""
    if state().num_processes == 1:
        return [float(number) for number in numbers]
    device = device_of_process()
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return sum_tensor(torch.tensor(list(numbers), dtype=dtype, device=device)).tolist()


def wait() -> None:
    """Return once all processes are here."""
    state().wait_for_everyone()


def _in_words(error: UserError | OSError) -> str:
    """What to tell the user of a mistake, a full disk or a missing permission."""
    return refused_by_system(error) if isinstance(error, OSError) else str(error)


def on_main(work: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
    """`work(*args, **kwargs)` on the main process, its result to all; if it fails, all fail with the same
    message."""
    outcome: list = [None, None]
    if is_main():
        try:
            outcome[0] = work(*args, **kwargs)
        except (UserError, OSError) as error:
            outcome[1] = _in_words(error)
    if state().num_processes > 1:
        broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise UserError(outcome[1])
    return outcome[0]


def main_first(work: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
    """`work(*args, **kwargs)` on each process, first on the main one: what it downloads is there for the
    others."""
    result = None

    def keep() -> None:
        nonlocal result
        result = work(*args, **kwargs)

    on_main(keep)
    return result if is_main() else work(*args, **kwargs)


def each_in_turn(items: Sequence[Item], work: Callable[[Item], None], name: str) -> None:
    """Share items out over the processes and work them off in rounds, one a process.

    After each round the processes agree: if one failed all fail with its message, and if one was told to
    stop, all do.

    Raises:
        UserError: the work failed on some process.
        Interrupted: the command was told to stop.
    """
    share = share_of_process()
    rounds = range(0, len(items), share.processes)
    for start in opened(rounds, desc=name, unit="part", disable=not is_main()):
        outcome = {"error": None, "signal": 0}
        if start + share.rank < len(items):
            try:
                work(items[start + share.rank])
            except (UserError, OSError) as error:
                outcome["error"] = _in_words(error)
        outcome["signal"] = interrupt.requested()
        outcomes = gather_object([outcome]) if share.processes > 1 else [outcome]
        if errors := [o["error"] for o in outcomes if o["error"]]:
            raise UserError(errors[0])
        if (signal := max(o["signal"] for o in outcomes)) and start + share.processes < len(items):
            say(f"{name}: stopped in the middle as told; the same command goes on")
            raise Interrupted(signal)


def leave_if_told(name: str) -> None:
    """Between two pieces of work: raise Interrupted on all processes if one was told to stop."""
    signal = interrupt.requested()
    if state().num_processes > 1:
        signal = max(gather_object([signal]))
    if signal:
        say(f"{name}: stopped as told; the same command goes on")
        raise Interrupted(signal)


def sum_together(*tensors: Tensor) -> list[Tensor]:
    """Sums of tensors of one type over all processes, each the same on all of them: one collective for all
    tensors."""
    if state().num_processes == 1:
        return list(tensors)
    joined = sum_tensor(torch.cat([tensor.flatten() for tensor in tensors]))
    parts = joined.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
