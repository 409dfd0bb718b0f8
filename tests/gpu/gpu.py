"""Devices for tests: the stand-in, everywhere, and a GPU where there is one.

    @pytest.mark.parametrize("name", gpu.devices())
    def test_something(name):
        device = gpu.open_device(name, _native)  # _native.Device of storage or comm
        ids = gpu.to_device(np.arange(8), name)  # .address, .numpy()

README.md beside this file says how the stand-in works.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import hashlib
import importlib.util
import math
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
INCLUDE = (ROOT / "storage/native", ROOT / "comm/native", HERE)
BUILD = ROOT / "build/gpu-stand-in"
COMPILER = os.environ.get("CXX", "g++")
FLAGS = (
    *("-std=c++20", "-O2", "-g1", "-fPIC", "-pthread", "-ffp-contract=off", "-w"),
    # A bad pointer or index in a kernel ends it with a message (block.cpp).
    *("-fsanitize=alignment,null,bounds", "-fno-sanitize-recover=all"),
    *(f"-I{folder}" for folder in INCLUDE),
)
THREADED = ("driver", "memory", "stream")
"""What of the stand-in is looked at under the thread sanitizer: it must know of their locks. Fibers
would confuse it."""
CUDA_LIBRARY = "libcuda.so.1"


class DriverError(RuntimeError):
    """A function of the driver failed."""


def cuda_sources() -> list[Path]:
    """The .cu files of the tree, those of tests included."""
    return sorted(path for folder in INCLUDE for path in folder.glob("*.cu"))


def _digest(paths: Sequence[Path], *more: str) -> str:
    digest = hashlib.sha256("\0".join(more).encode())
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _flags(source: Path) -> list[str]:
    under_tsan = "libtsan" in os.environ.get("LD_PRELOAD", "")
    looked_at = under_tsan and source.suffix == ".cpp" and source.name.startswith(THREADED)
    return [*FLAGS, *(["-fsanitize=thread"] if looked_at else [])]


def _compile(source: Path, state: str) -> Path:
    """The object of a source; compiled if it, a flag, or a header or compiler (state) is new."""
    flags = _flags(source)
    target = BUILD / f"{source.name}-{_digest([source], state, *flags)}.o"
    if target.exists():
        return target
    for old in BUILD.glob(f"{source.name}-*.o"):
        old.unlink()
    unfinished = target.with_suffix(".part")
    command = [COMPILER, "-x", "c++", *flags, "-c", str(source), "-o", str(unfinished)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{source} does not compile as C++:\n{done.stderr}")
    return unfinished.rename(target)


@functools.cache
def build() -> Path:
    """Compile the stand-in, with the kernels of the tree and of the tests, where it is not yet.

    All ranks may call it at once: one compiles, the others wait.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        headers = sorted(path for folder in INCLUDE for path in folder.glob("*.h"))
        version = subprocess.run(
            [COMPILER, "--version"], capture_output=True, text=True, check=True
        ).stdout
        state = _digest(headers, version)
        with ThreadPoolExecutor(2) as pool:
            objects = list(
                pool.map(
                    lambda source: _compile(source, state),
                    [*sorted(HERE.glob("*.cpp")), *cuda_sources()],
                )
            )
        names = "\n".join(path.name for path in objects)
        library = BUILD / f"libcuda-stand-in-{_digest([], names)}.so"
        if not library.exists():
            for old in BUILD.glob("libcuda-stand-in-*.so"):
                old.unlink()
            unfinished = library.with_suffix(".part")
            subprocess.run(
                [COMPILER, "-shared", "-pthread", *map(str, objects), "-o", str(unfinished)],
                check=True,
            )
            unfinished.rename(library)
    return library


class Driver:
    """A CUDA driver, real or not, its first device, and kernels for it."""

    def __init__(self, path: str, kernels: dict[str, int]) -> None:
        self.path = path
        """The library to open."""
        self.kernels = kernels
        """CUfunction of each kernel."""
        self._library = ctypes.CDLL(path)
        self._context = ctypes.c_void_p()
        self._check("cuInit", 0)
        self._check("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver in the context of the device; DriverError if it fails."""
        self._check("cuCtxSetCurrent", self._context)
        self._check(name, *arguments)

    def _check(self, name: str, *arguments: Any) -> None:
        result = getattr(self._library, name)(*arguments)
        if result != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(result, ctypes.byref(text))
            raise DriverError(f"{name}: error {result}, {(text.value or b'').decode()}")

    def launch(
        self,
        kernel: str,
        blocks: int,
        threads: int,
        args: ctypes.Structure,
        stream: ctypes.c_void_p | None = None,
    ) -> None:
        """Enqueue a kernel, on the default stream if none is given."""
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(args))
        grid = [ctypes.c_uint(n) for n in (blocks, 1, 1, threads, 1, 1, 0)]
        function = ctypes.c_void_p(self.kernels[kernel])
        self.call("cuLaunchKernel", function, *grid, stream, parameters, None)

    def synchronize(self) -> None:
        """Wait for everything that has been enqueued; DriverError if a kernel has failed."""
        self.call("cuCtxSynchronize")


@functools.cache
def _stand_in() -> ctypes.CDLL:
    library = ctypes.CDLL(str(build()))
    library.stand_in_next_kernel.restype = ctypes.c_void_p
    library.stand_in_held.restype = ctypes.c_size_t
    library.stand_in_launches.restype = ctypes.c_uint64
    library.stand_in_event_flags.restype = ctypes.c_uint
    library.stand_in_take_fault.restype = ctypes.c_size_t
    return library


@functools.cache
def driver(name: str = "stand-in") -> Driver:
    """The driver of one of devices(), with its kernels loaded."""
    if name == "cuda":
        from fourfold.runtime import kernels

        return Driver(CUDA_LIBRARY, kernels.load(0, cuda_sources()))
    library, kernel, text, found = _stand_in(), None, ctypes.c_char_p(), {}
    while kernel := library.stand_in_next_kernel(ctypes.c_void_p(kernel), ctypes.byref(text)):
        found[text.value.decode()] = kernel
    return Driver(str(build()), found)


@functools.cache
def devices() -> list[str]:
    """Devices that tests can run on: the stand-in, and "cuda" where there are a GPU and CuPy."""
    import torch

    there = torch.cuda.is_available() and importlib.util.find_spec("cupy") is not None
    return ["stand-in", *(["cuda"] if there else [])]


def open_device(
    name: str, core: Any, ordinal: int = 0, relief: Callable[[], None] | None = None
) -> Any:
    """The `Device` of a native core (fourfold.storage._native, fourfold.comm._native)."""
    chosen = driver(name)
    return core.Device(chosen.path, ordinal, chosen.kernels, relief)


class DeviceArray:
    """An array in the device's memory; what is enqueued must be done before it is looked at."""

    def __init__(self, shape: Sequence[int], dtype: Any, name: str) -> None:
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        self._driver = driver(name)
        address = ctypes.c_ulonglong()
        if self.nbytes:
            size = ctypes.c_size_t(self.nbytes)
            self._driver.call("cuMemAlloc_v2", ctypes.byref(address), size)
        self.address = address.value
        """Of its first element, on the device; 0 if the array is empty."""

    def write(self, array: np.ndarray) -> None:
        """Copy an array of the same shape and dtype to the device."""
        assert array.shape == self.shape
        assert array.dtype == self.dtype
        array = np.ascontiguousarray(array)
        if self.nbytes:
            to, source = ctypes.c_ulonglong(self.address), ctypes.c_void_p(array.ctypes.data)
            self._driver.call("cuMemcpyHtoD_v2", to, source, ctypes.c_size_t(self.nbytes))
            # It need not have arrived, and streams do not wait for the default one.
            self._driver.call("cuStreamSynchronize", None)

    def numpy(self) -> np.ndarray:
        """Wait for the device, and copy the array to the host."""
        self._driver.synchronize()
        array = np.empty(self.shape, self.dtype)
        if self.nbytes:
            to, source = ctypes.c_void_p(array.ctypes.data), ctypes.c_ulonglong(self.address)
            self._driver.call("cuMemcpyDtoH_v2", to, source, ctypes.c_size_t(self.nbytes))
        return array

    def __del__(self) -> None:
        if not getattr(self, "address", 0):
            return
        with contextlib.suppress(DriverError):  # a kernel has failed: another call says so
            self._driver.synchronize()  # the free does not promise to
        with contextlib.suppress(DriverError):
            self._driver.call("cuMemFree_v2", ctypes.c_ulonglong(self.address))


def empty(shape: int | Sequence[int], dtype: Any, name: str = "stand-in") -> DeviceArray:
    """An array of the device that is not initialised: on the stand-in its bytes are 0xcd."""
    return DeviceArray([shape] if isinstance(shape, int) else shape, dtype, name)


def to_device(array: np.ndarray, name: str = "stand-in") -> DeviceArray:
    """A copy of the array on the device."""
    copy = empty(array.shape, array.dtype, name)
    copy.write(array)
    return copy


@contextlib.contextmanager
def shaken(seed: int, delay_us: int = 0) -> Iterator[None]:
    """Within this, the stand-in deals turns to warps and lanes in another order for each seed.

    It sleeps up to delay_us before each piece of work of a stream. Both show who forgot to wait.
    """
    _stand_in().stand_in_shake(ctypes.c_uint64(seed), delay_us)
    try:
        yield
    finally:
        _stand_in().stand_in_shake(
            ctypes.c_uint64(int(os.environ.get("FOURFOLD_STAND_IN_SEED", "0"))),
            int(os.environ.get("FOURFOLD_STAND_IN_DELAY_US", "0")),
        )


@contextlib.contextmanager
def limited(num_bytes: int) -> Iterator[None]:
    """Within this, the stand-in's device has so many bytes beside those that are taken already."""
    library = _stand_in()
    limit = int(os.environ.get("FOURFOLD_STAND_IN_BYTES", str(4 << 30)))
    library.stand_in_limit(ctypes.c_size_t(held_bytes() + num_bytes))
    try:
        yield
    finally:
        library.stand_in_limit(ctypes.c_size_t(limit))


def held_bytes(*, pinned: bool = False) -> int:
    """Bytes of device memory (or pinned memory) that the stand-in has given out."""
    return int(_stand_in().stand_in_held(int(pinned)))


def launches() -> int:
    """Kernels that the stand-in was given since its start, or since it was last shaken."""
    return int(_stand_in().stand_in_launches())


def event_flags(handle: int) -> int:
    """CUevent_flags that an event of the stand-in was made with."""
    return int(_stand_in().stand_in_event_flags(ctypes.c_void_p(handle)))


def take_fault() -> str:
    """What a kernel did wrong on the stand-in, or ""; then it goes on as if nothing was."""
    if not _stand_in.cache_info().currsize:  # nothing has run on it
        return ""
    text = ctypes.create_string_buffer(1024)
    _stand_in().stand_in_take_fault(text, ctypes.c_size_t(len(text)))
    return text.value.decode()
