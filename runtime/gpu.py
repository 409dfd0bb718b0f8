"""What a process finds that GPU ranks need, and how to get what it does not find."""

from __future__ import annotations

import importlib.metadata
import os
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from fourfold.runtime.driver import LIBRARY, Driver, ask_driver

LEAST_CAPABILITY = (8, 0)
"""Kernels are compiled for GPUs from here on: A100 and newer."""


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """What one process found. Plain data: other ranks' facts look the same."""

    driver: Driver = field(default_factory=Driver)
    visible: str | None = None
    """CUDA_VISIBLE_DEVICES; None if it is not set."""
    torch_cuda: str | None = None
    """CUDA version that torch was built for; None for a build for the CPU."""
    cupy: str | None = None
    """Version of CuPy, which loads the kernels."""
    nvrtc: str | None = None
    """Version of NVRTC that CuPy finds, which compiles them."""
    nccl: str | None = None
    """Version of NCCL that CuPy finds, which carries rows between GPUs."""

    @property
    def compiles(self) -> bool:
        """Whether kernels can be compiled here."""
        return self.cupy is not None and self.nvrtc is not None


def find_facts(library: str = LIBRARY, *, thorough: bool = True) -> GpuFacts:
    """Look at driver, torch, CuPy, NVRTC and NCCL. No context is made on any GPU.

    thorough: import CuPy, if it is installed, to see what it finds, also where there is no GPU for
    it to use; that takes a second.
    """
    import torch

    driver, cupy = ask_driver(library), cupy_version()
    nvrtc, nccl = None, None
    if cupy is not None and (thorough or driver.gpus):
        nvrtc, nccl = _ask_cupy()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return GpuFacts(driver, visible, torch.version.cuda, cupy, nvrtc, nccl)


def cupy_version() -> str | None:
    """Return the version of CuPy, whatever its build is called; None if it is not installed."""
    builds = ("cupy-cuda13x", "cupy-cuda12x", "cupy")
    for build in builds:
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(build)
    return None


class Lack(NamedTuple):
    """Something that a GPU rank needs and has not."""

    what: str
    remedy: str
    """How to get it."""

    def __str__(self) -> str:
        return f"no {self.what}: {self.remedy}"


def lacks(facts: GpuFacts, *, several: bool = False) -> list[Lack]:
    """Name all that a GPU rank needs and this process has not.

    several: whether rows travel between GPUs.
    """
    return [
        *_driver_lacks(facts.driver, facts.visible),
        *_torch_lacks(facts),
        *_kernel_lacks(facts),
        *([_NCCL] if several and facts.nccl is None else []),
    ]


_NCCL = Lack(
    "NCCL, which carries rows between GPUs",
    "`pip install nvidia-nccl-cu13` (or nvidia-nccl-cu12, as CuPy was built)",
)


def _driver_lacks(driver: Driver, visible: str | None) -> list[Lack]:
    if driver.problem:
        return [
            Lack(
                f"working NVIDIA driver ({driver.problem})",
                "ask the launcher for nodes with GPUs, or install the driver",
            )
        ]
    if driver.gpus:
        return []
    if visible is not None:
        return [
            Lack(
                f"GPU (CUDA_VISIBLE_DEVICES={visible!r} leaves none)",
                "unset it, or name GPUs that `nvidia-smi -L` lists",
            )
        ]
    return [Lack("GPU (the driver sees none)", "ask the launcher for GPUs (srun --gpus=...)")]


def _torch_lacks(facts: GpuFacts) -> list[Lack]:
    if facts.torch_cuda is None:
        return [
            Lack(
                "CUDA build of torch (this one is for the CPU)",
                "`pip install torch` without constraints.txt and without a CPU index",
            )
        ]
    if _newer(facts.torch_cuda, facts.driver):
        return [
            Lack(
                f"driver for CUDA {facts.torch_cuda}, which torch was built for (this one supports"
                f" {_dotted(facts.driver.cuda)})",
                "install a newer driver, or torch for an older CUDA",
            )
        ]
    return []


def _kernel_lacks(facts: GpuFacts) -> list[Lack]:
    old = facts.driver.cuda is not None and facts.driver.cuda[0] < 13
    install = f'`pip install "fourfold[{"cuda12" if old else "cuda13"}]"`'
    if facts.cupy is None:
        return [Lack("CuPy, which loads the kernels", install)]
    if facts.nvrtc is None:
        return [Lack("NVRTC, which compiles the kernels", install)]
    if _newer(facts.nvrtc, facts.driver):
        return [
            Lack(
                f"driver for CUDA {facts.nvrtc}, whose NVRTC CuPy finds (this one supports"
                f" {_dotted(facts.driver.cuda)})",
                f"{install} in place of this CuPy, or install a newer driver",
            )
        ]
    return []


def _newer(version: str | None, driver: Driver) -> bool:
    """Whether something of this CUDA version is too new for the driver: by major versions."""
    if version is None or driver.cuda is None:
        return False
    return int(version.partition(".")[0]) > driver.cuda[0]


def _dotted(version: tuple[int, int] | None) -> str:
    return ".".join(map(str, version or ()))


def _ask_cupy() -> tuple[str | None, str | None]:
    """Return the versions of NVRTC and NCCL that CuPy finds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of what is said here in one place
        try:
            from cupy.cuda import nccl, nvrtc
        except Exception:  # a CuPy that does not load helps nobody, whatever it says
            return None, None
        try:
            compiler = ".".join(map(str, nvrtc.getVersion()))
        except Exception:  # CuPy is there, the library is not
            compiler = None
    number = int(nccl.get_version()) if nccl.available else 0
    text = f"{number // 10000}.{number // 100 % 100}.{number % 100}" if number else None
    return compiler, text
