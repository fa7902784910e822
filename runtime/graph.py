"""One launch for all that a step does on a CUDA device.

A small network's step is some hundred kernels of a few microseconds each, and the host needs as long to start
each one: the device waits for the host. A CUDA graph records the kernels once and starts them together. What
is recorded works on the same memory with the same numbers each time, so all that changes from step to step
comes in as a tensor.
"""

import gc
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Generic, TypeVarTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from vqprior.configs import Config
from vqprior.configs.errors import UserError

from .processes import say

Outputs = TypeVarTuple("Outputs")
Input = Tensor | None


def recorded(
    work: Callable[..., tuple[*Outputs]],
    config: Config,
    accelerator: Accelerator,
) -> Callable[..., tuple[*Outputs]]:
    """The step of a training loop as the configuration asks for it: as it is, or recorded.

    Raises:
        UserError: it cannot be recorded here.
    """
    if not config.cuda_graph:
        return work
    has_scaler = accelerator.scaler is not None
    reasons = {
        f"the device is {accelerator.device}, and it takes one CUDA GPU": accelerator.device.type != "cuda",
        f"there are {accelerator.num_processes} processes, and it takes one": accelerator.num_processes > 1,
        "precision fp16 has a loss scaler that the host looks after; take bf16 or no": has_scaler,
        "torch.compile makes kernels of its own; leave out --compile": config.compile,
    }
    if against := [reason for reason, applies in reasons.items() if applies]:
        raise UserError(f"a step cannot be recorded (--cuda_graph): {against[0]}, or leave out --cuda_graph")
    return Recorded(work)


class Recorded(Generic[*Outputs]):
    """A function of tensors on a CUDA device, recorded after some calls and then replayed.

    The first calls are made as they are: kernels are chosen and libraries set up in them. The tensors that
    are returned are overwritten by the next call.

    Args:
        work: takes tensors of one shape in each call, and reads nothing on the host.
    """

    WARM_UP = 3  # calls before the one that is recorded

    def __init__(self, work: Callable[..., tuple[*Outputs]]):
        self.work, self.calls, self.stream = work, 0, None

    def __call__(self, *given: Input) -> tuple[*Outputs]:
        self.calls += 1
        if self.calls <= self.WARM_UP:
            # one for all of them: memory is cached by stream
            self.stream = self.stream or torch.cuda.Stream()
            return apart(self.work, given, self.stream)
        if self.calls == self.WARM_UP + 1:
            self.inputs = [tensor if tensor is None else tensor.clone() for tensor in given]
            self.replay, self.outputs = record(self.work, self.inputs)
        for mine, tensor in zip(self.inputs, given, strict=True):
            if mine is not None:
                mine.copy_(tensor)
        self.replay()
        return self.outputs


def apart(
    work: Callable[..., tuple[*Outputs]],
    given: tuple[Input, ...],
    stream: torch.cuda.Stream,
) -> tuple[*Outputs]:
    """Do the work on a stream of its own, as it must be done before it can be recorded."""
    here = torch.cuda.current_stream()
    stream.wait_stream(here)
    with torch.cuda.stream(stream):
        outputs = work(*given)
    here.wait_stream(stream)
    return outputs


def record(
    work: Callable[..., tuple[*Outputs]],
    inputs: list[Input],
) -> tuple[Callable[[], None], tuple[*Outputs]]:
    """Record the work without doing it: a function that does it, and the tensors that it then fills."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # what other threads do is no part of it
        outputs = work(*inputs)
    return graph.replay, outputs


def can_record(device: torch.device) -> bool:
    """Whether work on the device can be recorded in graphs."""
    return device.type == "cuda"


def arithmetic() -> tuple[object, ...]:
    """What work computes in, besides the types of its tensors: a recorded graph keeps what was set then."""
    backends = torch.backends
    products = backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision
    return *products, torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()


def say_not_recorded(what: str, error: RuntimeError) -> None:
    """Say that work goes on without graphs, and why."""
    why = str(error).partition("\n")[0]
    say(f"{what} cannot be recorded as CUDA graphs here, and are launched kernel by kernel: {why}")


def record_in_turn(works: Iterable[Callable[[], object]], device: torch.device) -> list[Callable[[], None]]:
    """Record pieces of work on a CUDA device, one graph each: functions that replay them, to be called in
    this order.

    The device does nothing meanwhile, but Python runs each piece once. The graphs share the memory that they
    allocate on the way, so nothing that one of them allocates is good for a later one.

    Raises:
        RuntimeError: something in them cannot be recorded.
    """
    with torch.cuda.device(device):
        torch.cuda.synchronize()
        gc.collect()  # what is dead must not be given back during a recording
        torch.cuda.empty_cache()  # which a recording that needs memory cannot do
        pool, stream, graphs = torch.cuda.graph_pool_handle(), torch.cuda.Stream(), []
        with torch.cuda.stream(stream):
            for work in works:
                graphs.append(torch.cuda.CUDAGraph())
                graphs[-1].capture_begin(pool=pool, capture_error_mode="thread_local")
                try:
                    work()
                except BaseException:
                    with suppress(RuntimeError):  # which is about the recording that was broken off
                        graphs[-1].capture_end()
                    raise
                graphs[-1].capture_end()
    return [graph.replay for graph in graphs]
