"""The CUDA driver, asked which GPUs there are: without a context, without torch.

Looked for at run time, like the native cores do it. Order and number of the GPUs are those that
CUDA_VISIBLE_DEVICES leaves; ordinals elsewhere (torch, CuPy, our kernels) are the same.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LIBRARY = "libcuda.so.1"

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU that this process may use."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]
    """Compute capability, (major, minor)."""
    uuid: str
    """The same in every process that sees it; of a MIG device its own."""
    bus: str = ""
    """PCI bus id: MIG devices of one GPU have the same. Empty if the driver does not say."""


@dataclass(frozen=True, slots=True)
class Driver:
    """What the driver says."""

    cuda: tuple[int, int] | None = None
    """The CUDA version that it supports, (major, minor); None without a driver."""
    gpus: tuple[Gpu, ...] = ()
    """Visible GPUs, by ordinal."""
    problem: str = ""
    """Why there is no driver, or why it does not work."""


def ask_driver(library: str = LIBRARY) -> Driver:
    """Load the driver and ask it. Never raises: what is wrong is in `problem`."""
    try:
        cuda = ctypes.CDLL(library)
    except OSError as error:
        absent = "cannot open shared object file: No such file" in str(error)
        return Driver(problem=f"{library} not found" if absent else str(error))
    try:
        return _ask(cuda)
    except (_DriverError, AttributeError) as error:
        return Driver(problem=f"{library} does not work: {error}")


class _DriverError(Exception):
    pass


def _ask(cuda: ctypes.CDLL) -> Driver:
    version = _version(_number(cuda.cuDriverGetVersion))
    code = cuda.cuInit(0)
    if code == _NO_DEVICE:
        return Driver(version)
    if code:
        return Driver(version, problem=f"the driver does not start: {_error(cuda, code)}")
    count = _number(cuda.cuDeviceGetCount)
    return Driver(version, tuple(_describe(cuda, ordinal) for ordinal in range(count)))


def _describe(cuda: ctypes.CDLL, ordinal: int) -> Gpu:
    device = _number(cuda.cuDeviceGet, ordinal)
    name, uuid = ctypes.create_string_buffer(256), ctypes.create_string_buffer(16)
    memory = ctypes.c_size_t()
    _check(cuda.cuDeviceGetName(name, len(name), device), "cuDeviceGetName")
    _check(cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device), "cuDeviceTotalMem_v2")
    get_uuid = getattr(cuda, "cuDeviceGetUuid_v2", None) or cuda.cuDeviceGetUuid
    _check(get_uuid(uuid, device), "cuDeviceGetUuid")
    return Gpu(
        name=name.value.decode(errors="replace"),
        memory_bytes=memory.value,
        capability=(
            _number(cuda.cuDeviceGetAttribute, _MAJOR, device),
            _number(cuda.cuDeviceGetAttribute, _MINOR, device),
        ),
        uuid=uuid.raw.hex(),
        bus=_bus(cuda, device),
    )


def _bus(cuda: ctypes.CDLL, device: int) -> str:
    text = ctypes.create_string_buffer(32)
    ask = getattr(cuda, "cuDeviceGetPCIBusId", None)
    return "" if ask is None or ask(text, len(text), device) else text.value.decode()


def _number(function: Callable[..., int], *arguments: Any) -> int:
    """Call what writes an int to its first argument."""
    value = ctypes.c_int()
    _check(function(ctypes.byref(value), *arguments), getattr(function, "__name__", "libcuda"))
    return value.value


def _check(code: int, call: str) -> None:
    if code:
        raise _DriverError(f"{call} gives error {code}")


def _error(cuda: ctypes.CDLL, code: int) -> str:
    text = ctypes.c_char_p()
    if cuda.cuGetErrorString(code, ctypes.byref(text)) or not text.value:
        return f"error {code}"
    return f"error {code}, {text.value.decode(errors='replace')}"


def _version(number: int) -> tuple[int, int]:
    return number // 1000, number % 1000 // 10
