"""Calls of a driver that tests of the stand-in make themselves."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator

import gpu
import numpy as np

BYTES = 1 << 16
HELD_SECONDS = 40
"""How long a stream is held at most: a call that waits for it would wait for ever."""


class Args(ctypes.Structure):
    """TestArgs of kernels.h."""

    _fields_ = (
        ("input", ctypes.c_uint64),
        ("output", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("mode", ctypes.c_uint32),
    )


class Handle:
    """A stream or an event."""

    def __init__(self, driver: gpu.Driver, kind: str, flags: int) -> None:
        self.driver = driver
        self.kind = kind
        self.value = ctypes.c_void_p()
        driver.call(f"cu{kind}Create", ctypes.byref(self.value), flags)

    def destroy(self) -> None:
        self.driver.call(f"cu{self.kind}Destroy_v2", self.value)


class Pinned:
    """Pinned memory of BYTES bytes."""

    def __init__(self, driver: gpu.Driver) -> None:
        self._driver = driver
        self.address = ctypes.c_void_p()
        driver.call("cuMemHostAlloc", ctypes.byref(self.address), ctypes.c_size_t(BYTES), 3)
        self.array = np.frombuffer(
            (ctypes.c_uint8 * BYTES).from_address(self.address.value), np.uint8
        )

    def __del__(self) -> None:
        if self.address:
            self._driver.call("cuMemFreeHost", self.address)


class Held:
    """A stream that does nothing until it is let go, when the block ends or HELD_SECONDS are over.

    The last is an error.
    """

    def __init__(self, driver: gpu.Driver) -> None:
        self._driver = driver
        self._late = False
        self._warden = threading.Timer(HELD_SECONDS, self._give_up)
        self._gate = Pinned(driver)
        self._stream = Handle(driver, "Stream", 1)
        self._gate.array[:] = 0
        args = Args(self._gate.address.value, 0, 1, 0)
        driver.launch("test_hold", 1, 1, args, self._stream.value)
        self._warden.start()

    @property
    def handle(self) -> int:
        return self._stream.value.value

    def let_go(self) -> None:
        self._gate.array[:] = 1

    def synchronize(self) -> None:
        self._driver.call("cuStreamSynchronize", self._stream.value)

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self._warden.cancel()
        self.let_go()
        with contextlib.suppress(gpu.DriverError):
            self.synchronize()
        self._stream.destroy()
        assert not self._late, "something has waited for a stream that was held"

    def _give_up(self) -> None:
        self._late = True
        self.let_go()


def copy_in(driver, to, source, stream=None):
    driver.call(
        "cuMemcpyHtoDAsync_v2",
        ctypes.c_ulonglong(to.address),
        ctypes.c_void_p(source.ctypes.data),
        ctypes.c_size_t(source.nbytes),
        stream,
    )


def copy_out(driver, to, source, stream=None):
    driver.call(
        "cuMemcpyDtoHAsync_v2",
        ctypes.c_void_p(to.ctypes.data),
        ctypes.c_ulonglong(source.address),
        ctypes.c_size_t(to.nbytes),
        stream,
    )


def copy(driver, to, source, stream=None):
    driver.call(
        "cuMemcpyDtoDAsync_v2",
        ctypes.c_ulonglong(to.address),
        ctypes.c_ulonglong(source.address),
        ctypes.c_size_t(source.nbytes),
        stream,
    )


def fill(driver, to, byte, stream=None):
    where, size = ctypes.c_ulonglong(to.address), ctypes.c_size_t(to.nbytes)
    driver.call("cuMemsetD8Async", where, ctypes.c_ubyte(byte), size, stream)


@contextlib.contextmanager
def registering_limited(num_bytes: int) -> Iterator[None]:
    """Within this, the stand-in refuses to pin more memory of others than so many bytes."""
    library = ctypes.CDLL(str(gpu.build()))
    library.stand_in_limit_registered(ctypes.c_size_t(registered_bytes() + num_bytes))
    try:
        yield
    finally:
        library.stand_in_limit_registered(ctypes.c_size_t(2**64 - 1))


def registered_bytes() -> int:
    """Bytes of memory of others that are pinned on the stand-in."""
    library = ctypes.CDLL(str(gpu.build()))
    library.stand_in_registered.restype = ctypes.c_size_t
    return int(library.stand_in_registered())


def bytes_on(driver):
    name = "stand-in" if driver is gpu.driver("stand-in") else "cuda"
    return gpu.empty(BYTES, np.uint8, name)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Within this, the stand-in begins nothing: who waits for it waits until the end of this."""
    library = ctypes.CDLL(gpu.driver().path)
    library.stand_in_hold(1)
    try:
        yield
    finally:
        library.stand_in_hold(0)
