"""A pretend GPU: tensors that say `cuda:0` or `mps:0` and compute on the CPU, bit for bit as it does.

    with pretend("cuda") as gpu:
        cli.main(["run", ...])        # the whole command, with real numbers
    gpu.waits                         # {"copy train.py:68": 25, ...}: where the host waited for the device
    gpu.operations                    # {"convolution": 40, ...}: what was launched, without views

It holds a program to what a real device asks of it:

- Refused: tensors of two devices in one operation (a CPU tensor without axes may join), fp64 on MPS,
  `numpy()`, pickling, a fused optimizer whose tensors differ in their layout, and an asynchronous copy to
  MPS, which reads its source too late (pytorch#189690).
- Counted as waits: reading a number back, copies from or to memory that is not pinned, operations whose
  result has a size that only the device knows, `synchronize()` of a device, a stream or an event.
- Late: an asynchronous copy to the CPU holds garbage until something has waited for it. Who reads too
  early, sees it.
- Fast ways taken: torch's optimizers and its clipping choose their fused and foreach forms as on CUDA. A
  foreach operation counts once where dtypes and strides agree; else once for each tensor, since CUDA then
  loops over them.

What it cannot see: kernels, the order of several streams, DDP, NCCL, CUDA graphs, speed.

How it is made: a subclass of `torch.Tensor` that holds the CPU's tensor, a dispatch mode for operations
that make new tensors on the device, a function mode for calls (autocast among them), and a small autograd
engine in Python, since torch's own asks the driver for streams. Modes belong to a thread; threads that
begin inside get their own."""

import contextlib
import os
import sys
import threading
import time
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # what optimizers import lazily must not be imported under a mode
import torch.nn.functional as F
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.optim.optimizer import _foreach_supported_types as MOVED_TOGETHER
from torch.overrides import TorchFunctionMode
from torch.utils._foreach_utils import _foreach_supported_types as CLIPPED_TOGETHER
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from vqprior.runtime import graph

MEMORY = 80 * 2**30  # bytes of the pretend device; three quarters of them are free

# Operations that cannot return before the host knows something that the device has computed
READ_BACK = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "equal",
    "bincount",
}
# Operations that launch nothing, besides views
FREE = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "lift_fresh",
    "_local_scalar_dense",
    "detach",
    "alias",
    "_unsafe_view",
    "is_same_size",
    "is_pinned",
    "record_stream",
}
# Operations that take tensors of two devices
COPIES = {"_to_copy", "copy_"}
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}
# What CUDA's autocast computes in 16 bits, and what in fp32
LOW_PRECISION = {
    F.conv1d,
    F.conv2d,
    F.conv_transpose2d,
    F.linear,
    torch.mm,
    torch.addmm,
    torch.bmm,
    torch.matmul,
}
FULL_PRECISION = {
    F.cross_entropy,
    F.mse_loss,
    F.l1_loss,
    F.log_softmax,
    F.softmax,
    F.normalize,
    torch.softmax,
    torch.log_softmax,
    torch.exp,
    torch.log,
    torch.cumsum,
}


class PretendDevice:
    """What a pretend device has seen since it was made, or since `reset`."""

    def __init__(self, kind: str):
        self.device = torch.device(kind, 0)
        self.waits: Counter[str] = Counter()  # "what file.py:line" -> how often
        self.operations: Counter[str] = Counter()  # name -> how many launches
        self._pinned: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        self._on_the_way: list[tuple[Tensor, Tensor]] = []  # CPU tensors and what they will hold

    def reset(self) -> None:
        """Count from here."""
        self.waits.clear()
        self.operations.clear()

    def note_wait(self, what: str) -> None:
        """The host waits here, at the innermost line of the project; all copies are done then."""
        self.waits[f"{what} {_line_of_project()}"] += 1
        self.arrive()

    def arrive(self, until: list[tuple[Tensor, Tensor]] | None = None) -> None:
        """Deliver asynchronous copies to the CPU: those given, or all."""
        chosen = [*(self._on_the_way if until is None else until)]
        with torch.no_grad(), _disable_current_modes():
            for destination, value in chosen:
                destination.copy_(value)
        done = {id(destination) for destination, _ in chosen}
        self._on_the_way = [pair for pair in self._on_the_way if id(pair[0]) not in done]

    def send(self, destination: Tensor, value: Tensor) -> None:
        """Begin an asynchronous copy to the CPU: garbage until it arrives."""
        self._on_the_way.append((destination, value.clone()))
        destination.fill_(float("nan") if destination.is_floating_point() else 77)

    def on_the_way(self) -> list[tuple[Tensor, Tensor]]:
        """The copies that an event recorded now would wait for."""
        return [*self._on_the_way]

    def pin(self, tensor: Tensor) -> Tensor:
        """Remember that the memory of a CPU tensor is pinned."""
        self._pinned.add(tensor.untyped_storage())
        return tensor

    def is_pinned(self, tensor: Tensor) -> bool:
        """Whether a CPU tensor, or what it is a view of, is pinned."""
        return tensor.untyped_storage() in self._pinned


_current: PretendDevice | None = None


def _line_of_project() -> str:
    """`file.py:line` of the innermost call from the project; of the program itself where there is none."""
    frame = found = sys._getframe(2)
    while frame is not None and not frame.f_globals.get("__name__", "").startswith("vqprior."):
        frame = frame.f_back
    if frame is None:
        frame = found
        ours = ("torch", "tests.pretend_device")
        while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(ours):
            frame = frame.f_back
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


class DeviceTensor(torch.Tensor):
    """A tensor that says that it is on the device; `held` is the CPU's tensor that it computes with."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor):
        with _disable_current_modes():
            size = held.untyped_storage().nbytes() // held.element_size()
            shell = torch.empty(size, dtype=held.dtype, device="meta")
            shell = shell.as_strided(held.size(), held.stride(), held.storage_offset())
            keys = dict(dispatch_device=True, device_for_backend_keys=_current.device)
            tensor = torch.Tensor._make_subclass(cls, shell, False, **keys)
        tensor.held = held
        return tensor

    def __init__(self, held: Tensor):
        super().__init__()

    device = property(lambda self: _current.device)
    is_meta = property(lambda self: False)
    is_cuda = property(lambda self: _current.device.type == "cuda")
    is_mps = property(lambda self: _current.device.type == "mps")
    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _dispatch(func, args, kwargs or {})

    def __repr__(self) -> str:
        return f"{self.held!r} on a pretend {_current.device}"

    def __reduce_ex__(self, protocol: int) -> Any:
        raise TypeError("a tensor of the device is pickled")

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """`Tensor.to`; to where it is already it is no copy, which C++ cannot know."""
        asked = args[0] if args else kwargs.get("device")
        if isinstance(asked, torch.Tensor):
            args, asked = (asked.device, asked.dtype, *args[1:]), asked.device
        named = isinstance(asked, (str, torch.device))
        if kwargs.get("copy") or not named or torch.device(asked).type == "cpu":
            return super().to(*args, **kwargs)
        others = {name: value for name, value in kwargs.items() if name not in ("device", "non_blocking")}
        return super().to(*args[1:], **others) if args[1:] or others else self

    def tolist(self) -> list:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError(f"can't convert {_current.device} tensor to numpy; copy it to the CPU first")

    def record_stream(self, stream: Any) -> None:
        """Nothing is freed too early here."""


def _is_there(value: Any) -> bool:
    return isinstance(value, DeviceTensor)


def _refuse_dtype(dtype: torch.dtype) -> None:
    if _current.device.type == "mps" and dtype == torch.float64:
        raise TypeError("cannot convert to float64: the MPS framework does not support it")


def _dispatch(func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """One operation: checked, counted, computed by the CPU, and its results put on the device again."""
    if func is torch.ops.prim.device.default:
        return torch.device("meta")  # what torch's C++ is told: it would ask the driver of a GPU
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = [tensor for tensor in tensors if _is_there(tensor)]
    asked = None if kwargs.get("device") is None else torch.device(kwargs["device"])
    if _current is None or (not there and (asked is None or asked.type == "cpu")):
        return _on_cpu(func, args, kwargs)

    name = func._schema.name.split("::")[1]
    to_device = bool(there) if asked is None else asked.type != "cpu"
    _check_devices(func, name, tensors, there)
    if name.startswith("_fused_"):
        _check_layouts(args)
    late = _transfer(name, args, kwargs, to_device) if name in COPIES else None
    _count(func, name, args)

    bare = lambda value: value.held if _is_there(value) else value
    given, named = tree_map(bare, args), tree_map(bare, kwargs)
    if asked is not None:
        named["device"] = torch.device("cpu")
    if named.get("pin_memory"):
        named["pin_memory"] = False
    if to_device and named.get("dtype") is not None:
        _refuse_dtype(named["dtype"])
    if name == "_to_copy":
        named["non_blocking"] = False
    written = _written(func, args, kwargs)
    result = func(*given, **named)
    if late:
        _current.send(*late(result))
    return tree_map(lambda value: _on_device(value, written), result) if to_device else result


def _on_cpu(func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """An operation of CPU tensors alone; memory is not pinned, but remembered as if it were."""
    if _current is None or not (kwargs.get("pin_memory") or func._schema.name == "aten::is_pinned"):
        return func(*args, **kwargs)
    if func._schema.name == "aten::is_pinned":
        return _current.is_pinned(args[0])
    return _current.pin(func(*args, **{**kwargs, "pin_memory": False}))


def _on_device(value: Any, written: dict[int, DeviceTensor]) -> Any:
    """A result, as the tensor that was written to or as a new one."""
    if not isinstance(value, torch.Tensor):
        return value
    _refuse_dtype(value.dtype)
    return written[id(value)] if id(value) in written else DeviceTensor(value)


def _written(func: Callable, args: tuple, kwargs: dict[str, Any]) -> dict[int, DeviceTensor]:
    """The tensors that an operation writes into, by the CPU's tensors that they hold."""
    found = {}
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            by_position = index < len(args) and not argument.kwarg_only
            value = args[index] if by_position else kwargs.get(argument.name)
            found |= {id(leaf.held): leaf for leaf in tree_leaves(value) if _is_there(leaf)}
    return found


def _check_devices(func: Callable, name: str, tensors: list[Tensor], there: list[Tensor]) -> None:
    """Refuse tensors of two devices."""
    strangers = [tensor for tensor in tensors if not _is_there(tensor) and tensor.ndim]
    if there and strangers and name not in COPIES | INDEXED:
        raise RuntimeError(f"{func}: expected all tensors on one device, found {_current.device} and cpu")


def _layout(tensor: Tensor) -> tuple[int, ...]:
    """The strides that matter: those of axes with more than one place."""
    return tuple(stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1)


def _agree(lists: list[list[Tensor]]) -> bool:
    """Whether tensors at one place of several lists have one layout: foreach's condition on CUDA."""
    return all(len(set(map(_layout, together))) == 1 for together in zip(*lists, strict=True))


def _tensor_lists(args: tuple) -> list[list[Tensor]]:
    lists = [arg for arg in args if isinstance(arg, (list, tuple)) and arg and all(map(_is_there, arg))]
    return [one for one in lists if len(one) == len(lists[0])]


def _check_layouts(args: tuple) -> None:
    """Refuse what a fused optimizer on CUDA refuses; the CPU's would compute wrong numbers without a word."""
    if not _agree(_tensor_lists(args[:4])):
        raise RuntimeError("params, grads, exp_avgs, exp_avg_sqs must have the same dtype, device and layout")


def _transfer(name: str, args: tuple, kwargs: dict[str, Any], to_device: bool) -> Callable | None:
    """Count or refuse a copy between devices; what gives `send` its arguments, if it is to arrive later."""
    if name == "_to_copy":
        from_device, asynchronous, memory = _is_there(args[0]), kwargs.get("non_blocking"), args[0]
    else:
        from_device, asynchronous = _is_there(args[1]), kwargs.get("non_blocking") or any(args[2:])
        to_device, memory = _is_there(args[0]), args[0] if from_device else args[1]
    if from_device == to_device:
        return None
    if asynchronous and to_device and _current.device.type == "mps":
        raise RuntimeError("an asynchronous copy to mps reads its source later, whatever is there by then")
    fresh = name == "_to_copy" and from_device  # torch takes new memory for it, and pins that
    if not asynchronous or not (fresh or _current.is_pinned(memory)):
        _current.note_wait("copy")
        return None
    if to_device:
        return None
    if fresh:
        return lambda result: (_current.pin(result), result)
    return lambda result: (result, result)


def _count(func: Callable, name: str, args: tuple) -> None:
    """Count the operation, and the wait that it means."""
    if name in READ_BACK:
        _current.note_wait(name)
    if name in INDEXED and _is_there(args[0]):
        places = [index for index in args[1] if index is not None]
        if any(index.dtype == torch.bool or not _is_there(index) for index in places):
            _current.note_wait("index")
    if name in FREE or func.is_view:
        return
    lists = _tensor_lists(args) if name.startswith("_foreach_") else []
    _current.operations[name] += 1 if not lists or _agree(lists) else len(lists[0])


class _Dispatch(TorchDispatchMode):
    """Sees operations that have no tensor of the device among their arguments."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _dispatch(func, args, kwargs or {})


class _Calls(TorchFunctionMode):
    """What torch's C++ would ask the driver or a tensor's C++ side: the current device, and autocast."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if _current is not None and "device" in kwargs:
            kwargs = {**kwargs, "device": _numbered(kwargs["device"])}
        if _current is not None and func is torch.Tensor.to:
            args = tuple(map(_numbered, args))
        if _current is None or not torch.is_autocast_enabled(_current.device.type):
            return func(*args, **kwargs)
        low = torch.get_autocast_dtype(_current.device.type)
        for functions, dtype in ((LOW_PRECISION, low), (FULL_PRECISION, torch.float32)):
            if func in functions:
                args, kwargs = tree_map(lambda value, dtype=dtype: _cast(value, dtype), (args, kwargs))
        return func(*args, **kwargs)


def _numbered(value: Any) -> Any:
    """`cuda:0` for `cuda`."""
    same = isinstance(value, (str, torch.device)) and str(value) == _current.device.type
    return _current.device if same else value


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if _is_there(value) and value.is_floating_point() else value


def _group_by_dtype(lists: list[list], with_indices: bool = False) -> dict:
    """`torch._C._group_tensors_by_device_and_dtype` for tensors whose C++ side knows no device."""
    groups: dict = {}
    for index, first in enumerate(lists[0]):
        columns, indices = groups.setdefault((first.device, first.dtype), ([[] for _ in lists], []))
        indices.append(index)
        for column, one in zip(columns, lists, strict=True):
            if one:
                column.append(one[index])
    return groups if with_indices else {key: (columns, []) for key, (columns, _) in groups.items()}


# Autograd


def _fitted(gradient: Tensor, like: Any) -> Tensor:
    """A gradient in the shape and type of what it belongs to."""
    shape = tuple(like.shape)
    gradient = gradient if tuple(gradient.shape) == shape else gradient.sum_to_size(shape)
    return gradient if gradient.dtype == like.dtype else gradient.to(like.dtype)


def _accumulate(variable: Tensor, gradient: Tensor) -> None:
    """Add to `.grad`, whose strides are the variable's, as with torch's engine."""
    gradient = _fitted(gradient, variable).detach()
    if variable.grad is not None:
        variable.grad.add_(gradient)
    elif _layout(gradient) == _layout(variable):
        variable.grad = gradient
    else:
        variable.grad = torch.empty_like(variable).copy_(gradient)


def _in_order(root: Any) -> list:
    """The nodes below a root of the graph, each after all that feed it gradients."""
    order, seen, stack = [], set(), [(root, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(following, False) for following, _ in node.next_functions if following is not None]
    return order[::-1]


def _call(node: Any, gradients: list[Tensor | None]) -> tuple[Tensor | None, ...]:
    """The gradients of a node's inputs."""
    if not isinstance(node, torch.autograd.function.BackwardCFunction):
        results = node(*gradients)
        return results if isinstance(results, tuple) else (results,)
    # of a `torch.autograd.Function`: those that are no tensors have None too
    results = node.apply(*gradients)
    spare = len(results) - len(node.next_functions)
    return tuple(result for index, result in enumerate(results) if result is not None or index >= spare)


@torch.no_grad()
def _backward(
    root: Tensor | tuple[Tensor, ...],
    gradient: Tensor | None = None,
    *unused: Any,
    **options: Any,
) -> None:
    """`Tensor.backward` and `torch.autograd.backward` of one tensor, also of one on the CPU."""
    root = root if isinstance(root, torch.Tensor) else root[0]
    first = torch.ones_like(root) if gradient is None else gradient
    gradients: dict[Any, dict[int, Tensor]] = defaultdict(dict, {root.grad_fn: {root.output_nr: first}})
    for node in _in_order(root.grad_fn):
        arrived = gradients.pop(node, {})
        if not arrived:
            continue
        if hasattr(node, "variable"):
            _accumulate(node.variable, arrived[0])
            continue
        metadata = enumerate(node._input_metadata)
        results = _call(node, [_fitted(arrived[i], like) if i in arrived else None for i, like in metadata])
        for (following, index), result in zip(node.next_functions, results, strict=True):
            if following is not None and result is not None:
                mine = gradients[following]
                mine[index] = mine[index] + result if index in mine else result


# What is around tensors: modules, streams, events, memory, threads


def _module_to(
    module: torch.nn.Module,
    *args: Any,
    to: Callable = torch.nn.Module.to,
    **kwargs: Any,
) -> torch.nn.Module:
    """`Module.to`: a module that is there already keeps its parameters, as on a real device."""
    device, dtype, _, layout = torch._C._nn._parse_to(*args, **kwargs)
    stays = device is not None and device.type == _current.device.type and dtype is None and layout is None
    if stays and all(map(_is_there, [*module.parameters(), *module.buffers()])):
        return module
    return to(module, *args, **kwargs)


def _pin_memory(tensor: Tensor, device: Any = None) -> Tensor:
    if _is_there(tensor):
        raise RuntimeError("cannot pin a tensor of the device: only dense CPU tensors can be pinned")
    return tensor if _current.is_pinned(tensor) else _current.pin(tensor.clone())


class PretendEvent:
    """An event of `torch.cuda` or `torch.mps`: knows which copies it comes after."""

    def __init__(self, *args: Any, **kwargs: Any):
        self.copies: list[tuple[Tensor, Tensor]] = []
        self.at = 0.0

    def record(self, stream: Any = None) -> None:
        """Stand after all that was launched so far."""
        self.copies, self.at = _current.on_the_way(), time.perf_counter()

    def synchronize(self) -> None:
        """Wait for it: copies that were begun before it are there then, and later ones are not."""
        _current.waits[f"synchronize {_line_of_project()}"] += 1
        _current.arrive(self.copies)

    def query(self) -> bool:
        """Whether it is reached: always, and then the copies before it are there."""
        _current.arrive(self.copies)
        return True

    def wait(self, stream: Any = None) -> None:
        """Make a stream wait, not the host."""

    def elapsed_time(self, end: "PretendEvent") -> float:
        """Milliseconds of the host between two records."""
        return 1000 * (end.at - self.at)


class PretendStream:
    """A stream: all work is done in the order in which it is launched."""

    def __init__(self, *args: Any, **kwargs: Any):
        self.device = _current.device

    def synchronize(self) -> None:
        """Wait for all that was launched on it."""
        _current.note_wait("synchronize")

    def record_event(self, event: PretendEvent | None = None) -> PretendEvent:
        """Record an event on it."""
        event = event or PretendEvent()
        event.record(self)
        return event

    def query(self) -> bool:
        """Whether all is done."""
        return True

    def wait_stream(self, stream: "PretendStream") -> None:
        """Order is kept anyway."""

    def wait_event(self, event: PretendEvent) -> None:
        """Order is kept anyway."""

    def __enter__(self) -> "PretendStream":
        return self

    def __exit__(self, *error: Any) -> None:
        """The stream before is the current one again."""


def _record(work: Callable, inputs: list) -> tuple[Callable[[], None], tuple]:
    """In place of a CUDA graph: the work is done anew, in Python."""
    outputs = work(*inputs)

    def replay() -> None:
        for old, new in zip(outputs, work(*inputs), strict=True):
            old.copy_(new)

    return replay, outputs


def _run_thread(thread: threading.Thread, run: Callable = threading.Thread.run) -> None:
    with _Dispatch(), _Calls():
        run(thread)


def _patches(gpu: PretendDevice) -> Iterator[Any]:
    """Everything of torch that is replaced; what a version of torch lacks is left out."""
    synchronize = lambda *args, **kwargs: gpu.note_wait("synchronize")
    yes, nothing, zero = (lambda *a, **k: True), (lambda *a, **k: None), (lambda *a, **k: 0)
    properties = SimpleNamespace(name="pretend", total_memory=MEMORY, major=8, minor=0)
    kind, module = gpu.device.type, getattr(torch, gpu.device.type)
    replaced = {
        torch: {"Event": PretendEvent, "Stream": PretendStream},
        torch.Tensor: {
            "backward": _backward,
            "pin_memory": _pin_memory,
            "is_pinned": lambda t, *a: gpu.is_pinned(t),
        },
        torch.autograd: {"backward": _backward},
        torch.nn.Module: {"to": _module_to},
        torch._C: {"_group_tensors_by_device_and_dtype": _group_by_dtype},
        torch.__future__: {"get_overwrite_module_params_on_conversion": yes},
        torch.optim.Optimizer: {
            "_accelerator_graph_capture_health_check": nothing,
            "_cuda_graph_capture_health_check": nothing,
        },
        torch.accelerator: {
            "is_available": yes,
            "synchronize": synchronize,
            "current_accelerator": lambda *a, **k: torch.device(kind),
            "current_stream": PretendStream,
            "current_device_index": zero,
            "device_count": lambda: 1,
            "get_memory_info": lambda *a: (MEMORY * 3 // 4, MEMORY),
            "empty_cache": nothing,
        },
        threading.Thread: {"run": _run_thread},
        module: {"Event": PretendEvent, "synchronize": synchronize, "empty_cache": nothing},
    }
    if kind == "cuda":
        replaced[module] |= {
            "is_available": yes,
            "is_initialized": yes,
            "_lazy_init": nothing,
            "device_count": lambda: 1,
            "current_device": zero,
            "set_device": nothing,
            "is_bf16_supported": yes,
            "is_current_stream_capturing": lambda: False,
            "get_device_properties": lambda *a: properties,
            "get_device_name": lambda *a: properties.name,
            "get_device_capability": lambda *a: (8, 0),
            "mem_get_info": lambda *a: (MEMORY * 3 // 4, MEMORY),
            "memory_allocated": zero,
            "max_memory_allocated": zero,
            "max_memory_reserved": zero,
            "reset_peak_memory_stats": nothing,
            "set_sync_debug_mode": nothing,
            "manual_seed_all": nothing,
            "Stream": PretendStream,
            "stream": lambda stream: stream or contextlib.nullcontext(),
            "current_stream": PretendStream,
            "default_stream": PretendStream,
        }
        replaced[graph] = {"record": _record, "record_in_turn": lambda works, device: [*works]}
    else:
        replaced[module] |= {"recommended_max_memory": lambda: MEMORY, "driver_allocated_memory": zero}
        replaced[torch.backends.mps] = {"is_available": yes, "is_built": yes, "is_macos_or_newer": yes}
    for owner, names in replaced.items():
        for name, value in names.items():
            if hasattr(owner, name):
                yield mock.patch.object(owner, name, value)
    for types in (CLIPPED_TOGETHER, MOVED_TOGETHER):
        yield _with_device_tensors(types)
    yield mock.patch.dict(os.environ, ACCELERATE_TORCH_DEVICE=f"{kind}:0")


@contextlib.contextmanager
def _with_device_tensors(types: list[type]) -> Iterator[None]:
    """Inside, tensors of the device are among the types that torch treats many at a time."""
    types.append(DeviceTensor)
    try:
        yield
    finally:
        types.remove(DeviceTensor)


@contextlib.contextmanager
def _lifting_on_the_cpu() -> Iterator[None]:
    """Inside, `torch.tensor(numbers, device=...)` is made on the CPU and copied, instead of by a kernel."""
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        yield
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


@contextlib.contextmanager
def pretend(kind: str = "cuda") -> Iterator[PretendDevice]:
    """Inside, this machine has one device, `cuda:0` or `mps:0`, and accelerate chooses it.

    accelerate's view of the processes is made anew inside and afterwards.
    """
    global _current
    gpu = PretendDevice(kind)
    AcceleratorState._reset_state(True)
    with contextlib.ExitStack() as stack:
        _current = gpu
        stack.callback(_forget)
        for patch in [*_patches(gpu), _lifting_on_the_cpu(), _Dispatch(), _Calls()]:
            stack.enter_context(patch)
        yield gpu


def _forget() -> None:
    global _current
    _current = None
    AcceleratorState._reset_state(True)
