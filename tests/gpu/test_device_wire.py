"""Formats on devices: bit for bit those of the host."""

from __future__ import annotations

import gpu
import numpy as np
import pytest
from numpy.typing import NDArray

from fourfold.storage import _native
from fourfold.storage.device_wire import narrow, widen

on_devices = pytest.mark.parametrize("name", gpu.devices())


def device_of(name: str) -> _native.Device:
    return gpu.open_device(name, _native)


def floats(n: int) -> NDArray[np.float32]:
    """Every exponent and sign, ties, infinities, NaN."""
    rng = np.random.default_rng(n)
    bits = rng.integers(0, 2**32, n, dtype=np.uint32)
    bits[::3] &= np.uint32(0xFFFF8000)  # ties of bf16
    bits[1::5] &= np.uint32(0xFFFFF000)  # and fp16
    bits[2::7] = rng.integers(0x33000000, 0x47800000, len(bits[2::7]), dtype=np.uint32)
    x = bits.view(np.float32)
    x[np.isnan(x)] = np.nan
    x[:4] = [0.0, -0.0, np.inf, -np.inf][:n]
    return x


@on_devices
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("n", [0, 1, 7, 8, 5_003])
@pytest.mark.parametrize(("dtype", "code"), [("bf16", 1), ("fp16", 2)])
def test_formats_are_those_of_the_host(
    name: str, dtype: str, code: int, n: int, offset: int
) -> None:
    """Also at addresses that are not multiples of 16 bytes; and nothing else is written."""
    device = device_of(name)
    x, random = floats(n), np.random.default_rng(1).integers(0, 2**32, n, dtype=np.uint32)
    there = gpu.to_device(np.concatenate([np.zeros(offset, np.float32), x]), name)
    bits = gpu.to_device(np.concatenate([np.zeros(offset, np.uint32), random]), name)
    half = gpu.to_device(np.full(n + 9, 0x1234, np.uint16), name)
    wide = gpu.to_device(np.full(n + 9, 5, np.float32), name)
    source, noise = there.address + 4 * offset, bits.address + 4 * offset
    to, back = half.address + 2 * offset, wide.address + 4 * offset

    narrow(device, source, to, n, dtype)
    nearest = half.numpy()
    widen(device, to, back, n, dtype)
    narrow(device, source, to, n, dtype, random=noise)
    stochastic = half.numpy()

    inside = slice(offset, offset + n)
    assert np.array_equal(nearest[inside], _native.narrow(x, code))
    assert np.array_equal(stochastic[inside], _native.narrow_stochastic(x, random, code))
    expected = _native.widen(nearest[inside].copy(), code)
    assert np.array_equal(wide.numpy()[inside].view(np.uint32), expected.view(np.uint32))
    for array, filled in ((nearest, 0x1234), (stochastic, 0x1234), (wide.numpy(), 5)):
        assert (np.delete(array, inside) == filled).all()


@on_devices
def test_only_narrow_formats_are_narrow(name: str) -> None:
    with pytest.raises(ValueError, match="must be one of bf16, fp16, got 'fp32'"):
        narrow(device_of(name), 0, 0, 0, "fp32")
