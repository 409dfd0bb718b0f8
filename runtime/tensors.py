"""Tensors as comm and storage take them: memory with a shape, and no torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def shared(tensor: Tensor) -> Any:
    """Share a tensor's memory: a NumPy array on the CPU, a DeviceArray on a GPU.

    In NumPy half types are their bits in uint16. What is shared must outlive its use, which on a
    GPU is in the order of the current stream.
    """
    if tensor.is_cuda:
        return _on_device(tensor)
    half = tensor.dtype in (torch.bfloat16, torch.float16)
    return (tensor.view(torch.uint16) if half else tensor).numpy()


def _on_device(tensor: Tensor) -> Any:
    from fourfold.comm.device import DeviceArray

    size = tensor.element_size()
    strides = tuple(size * stride for stride in tensor.stride())
    return DeviceArray(tensor.data_ptr(), tuple(tensor.shape), strides, _NAMES[tensor.dtype])
