"""A stand-in for CUDA's graphs, which records what the CPU does."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Recorder(TorchDispatchMode):
    """Notes every operation, with the very memory it reads and writes: like a CUDA graph, but the work is
    done too."""

    def __init__(self):
        super().__init__()
        self.notes = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if "_local_scalar_dense" in operation.name():
            raise AssertionError("the host reads a number of the device: that cannot be recorded")
        self.notes.append((operation, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        """The same operations on the same memory; Python takes no part in it."""
        for operation, args, kwargs, result in self.notes:
            returned = operation._schema.returns
            if any(value.alias_info is not None for value in returned):  # in place, or a view: nothing new
                operation(*args, **kwargs)
                continue
            for old, new in zip(tree_leaves(result), tree_leaves(operation(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor):
                    old.copy_(new)
