"""Checks written in C++, compiled with what they check: for what Python does not see."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import gpu

DEVICE = ("storage/native/cuda_driver.cpp", "storage/native/device.cpp")
"""What opens a device; all such checks need it."""


def compile_checks(folder: Path, *sources: str) -> ctypes.CDLL:
    """Compile sources, named from the root of the tree, and DEVICE to a library in `folder`."""
    target = folder / "checks.so"
    command = [
        *(gpu.COMPILER, "-std=c++20", "-O1", "-shared", "-fPIC", "-pthread"),
        f"-I{gpu.ROOT / 'storage/native'}",
        *(str(gpu.ROOT / source) for source in (*sources, *DEVICE)),
        *("-o", str(target), "-ldl"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(target))
