"""Memory of a pool is pinned as the pool takes it, and let go before it goes back."""

from __future__ import annotations

import ctypes

import gpu
import pytest
from driver_calls import registered_bytes
from native_checks import compile_checks


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return compile_checks(
        tmp_path_factory.mktemp("pinned_chunks"),
        "tests/storage/pinned_chunks.cpp",
        "storage/native/pinned_chunks.cpp",
        "storage/native/pool.cpp",
    )


@pytest.mark.parametrize("going", [False, True])
@pytest.mark.parametrize("name", gpu.devices())
def test_chunks_come_and_go(library: ctypes.CDLL, name: str, *, going: bool) -> None:
    library.check_chunks.restype = ctypes.c_char_p

    assert library.check_chunks(gpu.driver(name).path.encode(), going).decode() == ""
    assert registered_bytes() == 0
