"""Tensors from the CPU to a device."""

import torch
from torch import Tensor


def onto(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; on CUDA nothing waits for the copy, elsewhere it is there when this returns.

    A copy from pageable memory would wait for all that the GPU has to do. One from pinned memory need not,
    and torch keeps that memory until it is done. MPS reads the source of such a copy later, whether it is
    still there or not, and then computes with garbage (pytorch#189690).
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
