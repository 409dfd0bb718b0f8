"""Memory of a pool is pinned as the pool takes it, and let go before it goes back."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import gpu
import pytest
from driver_calls import registered_bytes

SOURCES = (
    "tests/storage/pinned_chunks.cpp",
    "storage/native/pinned_chunks.cpp",
    "storage/native/pool.cpp",
    "storage/native/cuda_driver.cpp",
    "storage/native/device.cpp",
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    target: Path = tmp_path_factory.mktemp("pinned_chunks") / "pinned_chunks.so"
    command = [
        *(gpu.COMPILER, "-std=c++20", "-O1", "-shared", "-fPIC", "-pthread"),
        f"-I{gpu.ROOT / 'storage/native'}",
        *(str(gpu.ROOT / source) for source in SOURCES),
        *("-o", str(target), "-ldl"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(target))


@pytest.mark.parametrize("going", [False, True])
@pytest.mark.parametrize("name", gpu.devices())
def test_chunks_come_and_go(library: ctypes.CDLL, name: str, *, going: bool) -> None:
    library.check_chunks.restype = ctypes.c_char_p

    assert library.check_chunks(gpu.driver(name).path.encode(), going).decode() == ""
    assert registered_bytes() == 0
