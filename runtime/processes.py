"""Several processes: who this one is, sums over all, and work that the main one does for the others."""

import atexit
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather, gather_object, reduce
from torch import Tensor
from tqdm import tqdm

from vqprior.configs.errors import UserError

from . import interrupt
from .interrupt import Interrupted
from .loader import Share
from .rendezvous import fresh_store

# The others wait while the main process downloads and decodes a data set: longer than the usual ten minutes
PATIENCE = timedelta(hours=4)

Item = TypeVar("Item")
Result = TypeVar("Result")


def on_cpus() -> bool:
    """Whether this machine has no accelerator; accelerate sees several processes on CPUs only when it is told so."""
    return not torch.accelerator.is_available()


def state() -> PartialState:
    """accelerate's view of the processes, made by the first call and taken down when Python ends."""
    if not PartialState._shared_state:
        atexit.register(_leave)
        PartialState(cpu=on_cpus(), timeout=PATIENCE, **fresh_store(PATIENCE))
    return PartialState()


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def share_of_process() -> Share:
    """Which process of how many this is."""
    return Share(state().process_index, state().num_processes)


def device_of_process() -> torch.device:
    """The device that the launcher gave this process: a GPU where there is one."""
    return state().device


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
    device = device_of_process()
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return sum_tensor(torch.tensor(list(numbers), dtype=dtype, device=device)).tolist()


def wait() -> None:
    """Return once all processes are here."""
    state().wait_for_everyone()


def _in_words(error: UserError | OSError) -> str:
    """What to tell the user of a mistake, a full disk or a missing permission."""
    if isinstance(error, UserError):
        return str(error)
    place = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or error}{place}. What was on disk before is whole; make room or mend it, and type the same again"


def on_main(work: Callable[[], Result]) -> Result:
    """Do the work on the main process and give its result to all; if it fails, all fail with the same message."""
    outcome: list = [None, None]
    if is_main():
        try:
            outcome[0] = work()
        except (UserError, OSError) as error:
            outcome[1] = _in_words(error)
    if state().num_processes > 1:
        broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise UserError(outcome[1])
    return outcome[0]


def each_in_turn(items: Sequence[Item], work: Callable[[Item], None], name: str) -> None:
    """Share items out over the processes and work them off in rounds, one a process.

    After each round the processes agree: if one failed all fail with its message, and if one was told to stop, all do.

    Raises:
        UserError: the work failed on some process.
        Interrupted: the command was told to stop.
    """
    share = share_of_process()
    rounds = range(0, len(items), share.processes)
    for start in tqdm(rounds, desc=name, disable=not is_main()):
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


def agree(*flags: int) -> list[int]:
    """The largest value of each flag over all processes, the same on each."""
    if state().num_processes == 1:
        return [int(flag) for flag in flags]
    mine = torch.tensor(flags, dtype=torch.int64, device=device_of_process())
    torch.distributed.all_reduce(mine, op=torch.distributed.ReduceOp.MAX)
    return mine.tolist()
