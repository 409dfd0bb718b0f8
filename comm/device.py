"""Rows and gradients in the memory of a GPU.

Everything is enqueued on one stream, that of the step: the holder's kernels that write reply rows,
the backend's messages, and the sums. So buffers are reused without waiting. What the sums need of a
batch is copied to the device when the batch has been routed, on a stream of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from fourfold.comm import _native
from fourfold.comm._native import Device, Route, Router, Stream
from fourfold.comm.agreement import WIRES
from fourfold.comm.backend import BLOCK
from fourfold.comm.route import WIRE_BYTES

DTYPES = {"<f4": "fp32", "<f2": "fp16", "<u2": "bf16"}
"""Element types by their names in `__cuda_array_interface__`, which has none for bfloat16."""

_Spec: TypeAlias = tuple[int, tuple[int, ...], tuple[int, ...], int]


@dataclass(frozen=True, slots=True)
class DeviceBytes:
    """Bytes of a GPU's memory."""

    address: int
    size: int


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """A strided array of a GPU's memory. Whoever made it keeps the memory alive."""

    address: int
    """Of the first element."""
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    """Bytes; None: contiguous, the last axis fastest."""
    dtype: str = "fp32"
    """ "fp32", "bf16" or "fp16"."""

    @property
    def spec(self) -> _Spec:
        """What the native core takes."""
        strides = self.strides
        if strides is None:
            steps = [WIRE_BYTES[self.dtype]]
            for n in reversed(self.shape[1:]):
                steps.append(steps[-1] * n)
            strides = tuple(reversed(steps)) if self.shape else ()
        return self.address, self.shape, strides, WIRES[self.dtype]


def as_device_array(array: Any) -> DeviceArray:
    """Describe a DeviceArray, or whatever has `__cuda_array_interface__` (uint16 is bfloat16).

    Raises TypeError for anything else, and for other element types.
    """
    if isinstance(array, DeviceArray):
        return array
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is None:
        raise TypeError(
            f"expected an array in the memory of a GPU (DeviceArray, or with"
            f" __cuda_array_interface__), got {type(array).__name__}"
        )
    dtype = DTYPES.get(interface["typestr"])
    if dtype is None:
        raise TypeError(
            f"expected float32, float16, or bfloat16 (as uint16), got {interface['typestr']!r}"
        )
    strides = interface.get("strides")
    return DeviceArray(
        int(interface["data"][0] or 0),
        tuple(interface["shape"]),
        None if strides is None else tuple(strides),
        dtype,
    )


class GrowingBytes:
    """A buffer in the memory of a GPU, for work on one stream."""

    def __init__(self, device: Device, stream: Stream) -> None:
        self._buffer, self._stream = _native.DeviceBuffer(device), stream

    def reserve(self, bytes: int) -> DeviceBytes:
        """Return that many bytes; what was there is lost if it grows, when the stream is done."""
        size = max(bytes, BLOCK)  # 0 is no address
        return DeviceBytes(self._buffer.reserve(size, self._stream), bytes)


class DeviceStep:
    """Steps in the memory of a GPU, by kernels. Arrays are those that `as_device_array` takes."""

    def __init__(self, router: Router, device: Device, stream: Stream) -> None:
        self._device, self._stream = device, stream
        self._step = _native.DeviceStep(router, device)

    def buffer(self) -> GrowingBytes:
        """Make a buffer for the messages of a step."""
        return GrowingBytes(self._device, self._stream)

    def address(self, memory: DeviceBytes) -> int:
        """Tell where what a buffer gave begins."""
        return memory.address

    def upload(self, route: Route) -> None:
        """Start to copy what the sums need of the batch to the device."""
        self._step.upload(route)

    def pool(self, route: Route, got: DeviceBytes, out: Any, sequences: Sequence[Any]) -> None:
        """Enqueue the sums of reply rows. Raises ValueError for arrays that do not fit."""
        others = [as_device_array(array).spec for array in sequences]
        self._step.pool(route, got.address, as_device_array(out).spec, others, self._stream)

    def spread(self, route: Route, grad: Any, sequences: Sequence[Any], sent: DeviceBytes) -> None:
        """Enqueue the sums of gradients. Raises ValueError for arrays that do not fit."""
        others = [as_device_array(array).spec for array in sequences]
        self._step.spread(route, as_device_array(grad).spec, others, sent.address, self._stream)


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """The memory of a GPU, and the stream of its steps."""

    device: Device
    stream: Stream

    def step(self, router: Router) -> DeviceStep:
        """Make what an exchange steps with. Raises ValueError for too many sequences."""
        return DeviceStep(router, self.device, self.stream)
