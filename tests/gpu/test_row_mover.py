"""Rows that move between a device and records of the host, both ways."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import gpu
import pytest

SOURCES = (
    "tests/storage/row_mover.cpp",
    "storage/native/row_mover.cpp",
    "storage/native/cuda_driver.cpp",
    "storage/native/device.cpp",
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    target: Path = tmp_path_factory.mktemp("row_mover") / "row_mover.so"
    command = [
        *(gpu.COMPILER, "-std=c++20", "-O1", "-shared", "-fPIC", "-pthread"),
        f"-I{gpu.ROOT / 'storage/native'}",
        *(str(gpu.ROOT / source) for source in SOURCES),
        *("-o", str(target), "-ldl"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(target))


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("name", gpu.devices())
def test_rows_come_and_go(library: ctypes.CDLL, name: str, *, pinned: bool) -> None:
    """Through buffers, or, if records are pinned and not too small, in place."""
    driver = gpu.driver(name)
    names = b"".join(kernel.encode() + b"\0" for kernel in driver.kernels)
    handles = (ctypes.c_uint64 * len(driver.kernels))(*driver.kernels.values())
    library.check_moves.restype = ctypes.c_char_p
    error = library.check_moves(
        driver.path.encode(), names, handles, ctypes.c_size_t(len(handles)), pinned
    )
    assert error.decode() == ""
