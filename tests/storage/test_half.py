"""Conversions of 16-bit types, against NumPy's and against torch's."""

import numpy as np
import pytest
import torch

from fourfold.storage import _native

BF16, FP16 = 1, 2


def every_half() -> np.ndarray:
    return np.arange(65536, dtype=np.uint32).astype(np.uint16)


def many_floats() -> np.ndarray:
    """Every 977th bit pattern and all neighbours of the halves' midpoints; infinities, NaN."""
    bits = np.arange(0, 2**32, 977, dtype=np.uint64).astype(np.uint32)
    halves = (every_half().astype(np.uint32) << 16)[:, None]
    near = halves + np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    fine = (every_half().view(np.float16).astype(np.float32).view(np.uint32))[:, None]
    near16 = fine + np.array([0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF], np.uint32)
    values = np.concatenate([bits, near.ravel(), near16.ravel()]).view(np.float32)
    return np.ascontiguousarray(values[: len(values) // 16 * 16])


def same_floats(expected: np.ndarray, actual: np.ndarray) -> bool:
    nan = np.isnan(expected)
    return bool(
        (nan == np.isnan(actual)).all()
        and (expected.view(np.uint32)[~nan] == actual.view(np.uint32)[~nan]).all()
    )


@pytest.mark.parametrize("widen", [_native.widen, _native.widen_lanes])
def test_widening_is_exact_for_every_value(widen) -> None:
    halves = every_half()
    with np.errstate(invalid="ignore"):
        assert same_floats(halves.view(np.float16).astype(np.float32), widen(halves, FP16))
    wide = (halves.astype(np.uint32) << 16).view(np.float32)
    assert same_floats(wide, widen(halves, BF16))


@pytest.mark.parametrize("narrow", [_native.narrow, _native.narrow_lanes])
def test_narrowing_rounds_to_nearest_even(narrow) -> None:
    values = many_floats()
    with np.errstate(over="ignore", invalid="ignore"):
        expected = values.astype(np.float16).astype(np.float32)
        assert same_floats(expected, _native.widen(narrow(values, FP16), FP16))
    bf16 = torch.from_numpy(values.copy()).bfloat16().float().numpy()
    assert same_floats(bf16, _native.widen(narrow(values, BF16), BF16))


@pytest.mark.parametrize("dtype", [BF16, FP16])
@pytest.mark.parametrize("value", [0.1, -1.0 / 3, 3e-6, -2.1e-7, 1000.3, 6.2e-5])
def test_stochastic_rounding_is_unbiased_and_only_to_neighbours(dtype: int, value: float) -> None:
    # Every value of the low 16 bits once: the average is exact but for the bits that are dropped.
    random = np.arange(65536, dtype=np.uint32)
    values = np.full(65536, value, np.float32)
    rounded = _native.widen(_native.narrow_stochastic(values, random, dtype), dtype)
    nearest = _native.widen(_native.narrow(values[:1], dtype), dtype)[0]
    neighbours = np.unique(rounded)

    assert len(neighbours) <= 2
    assert nearest in neighbours
    step = neighbours[-1] - neighbours[0] if len(neighbours) == 2 else abs(np.float32(value)) / 512
    assert abs(rounded.astype(np.float64).mean() - np.float32(value)) <= 2.0**-12 * step


@pytest.mark.parametrize("dtype", [BF16, FP16])
def test_stochastic_rounding_leaves_what_fits_alone(dtype: int) -> None:
    halves = every_half()
    exact = _native.widen(halves, dtype)
    random = np.full(65536, 0xFFFFFFFF, np.uint32)
    with np.errstate(invalid="ignore"):
        again = _native.widen(_native.narrow_stochastic(exact, random, dtype), dtype)
    assert same_floats(exact, again)
