"""Numbers in another format, in the memory of a GPU."""

from __future__ import annotations

from fourfold.storage import _native

_CODES = {"bf16": 1, "fp16": 2}


def _code(dtype: str) -> int:
    if dtype not in _CODES:
        raise ValueError(f"the narrow dtype must be one of {', '.join(_CODES)}, got {dtype!r}")
    return _CODES[dtype]


def narrow(
    device: _native.Device,
    source: int,
    to: int,
    n: int,
    dtype: str,
    *,
    random: int = 0,
    stream: int = 0,
) -> None:
    """Write numbers (n,) float32 at address `source` as "bf16" or "fp16" (n,) to address `to`.

    To nearest, ties to even; or, with random, (n,) uint32, up or down by 16 uniform low bits of
    each, so that the expectation is exact. The bits are those of native/half.h on the host. Fast if
    the addresses are multiples of 16. ValueError for another dtype. Enqueued: does not wait.
    """
    _native.device_narrow(device, source, to, n, _code(dtype), random, stream)


def widen(
    device: _native.Device, source: int, to: int, n: int, dtype: str, *, stream: int = 0
) -> None:
    """Write "bf16" or "fp16" numbers (n,) at address `source` as float32 (n,) to address `to`.

    ValueError for another dtype. Enqueued: does not wait.
    """
    _native.device_widen(device, source, to, n, _code(dtype), stream)
