"""What this process runs on: versions, machine, MPI, GPUs, native cores, commit.

Everything is looked up without side effects: a library that is not installed, or an MPI that nobody
started, is reported as such and never loaded. The GPU driver is asked, and no GPU is touched.
"""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fourfold.runtime.gpu import cupy_version, find_facts, lacks

PACKAGES = ("fourfold", "torch", "numpy", "mpi4py", "h5py", "pyarrow", "scipy", "cupy")


def describe(*, thorough: bool = False) -> dict[str, Any]:
    """Return JSON values, `None` where something is not there.

    thorough: import CuPy, if it is installed, to see whether it could compile kernels.
    """
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "commit": commit(Path(__file__).resolve().parents[1]),
        "machine": machine(),
        "mpi": mpi(),
        "hdf5": hdf5(),
        "torch": torch(),
        "gpu": gpu(thorough=thorough),
        "native": {layer: native(layer) for layer in ("storage", "comm")},
    }


def version(package: str) -> str | None:
    """Return the version of an installed package; any build of CuPy is `cupy`."""
    if package == "cupy":
        return cupy_version()
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit(root: Path) -> dict[str, Any] | None:
    """Return the commit of the checkout at `root` and whether it was changed, or None."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != root:
            return None  # installed into somebody else's checkout
        return {"hash": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def machine() -> dict[str, Any]:
    """Return cores that this process may use, memory and the huge page setting."""
    huge = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    setting = huge.read_text() if huge.exists() else ""
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "huge_pages": setting[setting.find("[") + 1 : setting.find("]")] or None,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def mpi() -> dict[str, Any] | None:
    """Return the MPI library and its thread level, if this process has started MPI."""
    if "mpi4py.MPI" not in sys.modules:
        return None
    from mpi4py import MPI

    levels = ("SINGLE", "FUNNELED", "SERIALIZED", "MULTIPLE")
    by_number = {getattr(MPI, f"THREAD_{level}"): level for level in levels}
    return {
        "library": mpi_library(),
        "standard": ".".join(map(str, MPI.Get_version())),
        "threads": by_number.get(MPI.Query_thread(), "unknown"),
        "size": MPI.COMM_WORLD.size,
    }


def mpi_library() -> str:
    """Return the name and version of the MPI library, which must be running."""
    from mpi4py import MPI

    return MPI.Get_library_version().splitlines()[0].split(",")[0].strip("\0 ")


def hdf5() -> dict[str, Any] | None:
    """Return the HDF5 version and whether h5py writes one file from many ranks."""
    try:
        import h5py
    except ImportError:
        return None
    return {"version": h5py.version.hdf5_version, "mpi": bool(h5py.get_config().mpi)}


def torch() -> dict[str, Any] | None:
    """Return what torch computes fp32 products with on the CPU."""
    try:
        import torch
    except ImportError:
        return None
    onednn = re.search(r"DNN\D*([0-9.]+)", torch.__config__.show())
    return {
        "cuda": torch.version.cuda,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "onednn": onednn[1] if onednn else None,
        "threads": torch.get_num_threads(),
    }


def gpu(*, thorough: bool = False) -> dict[str, Any]:
    """Return the visible GPUs and what ranks on GPUs need, with what they lack.

    No context is made. thorough: import CuPy, to see what it finds, also without a GPU.
    """
    facts = find_facts(thorough=thorough)
    devices = [
        {
            "ordinal": ordinal,
            "name": device.name,
            "memory_bytes": device.memory_bytes,
            "capability": list(device.capability),
        }
        for ordinal, device in enumerate(facts.driver.gpus)
    ]
    return {
        "devices": devices,
        "visible": facts.visible,
        "driver": _kernel_module(),
        "driver_cuda": _dotted(facts.driver.cuda),
        "torch_cuda": facts.torch_cuda,
        "cupy": facts.cupy,
        "nvrtc": facts.nvrtc,
        "nccl": facts.nccl,
        "compiles": facts.compiles,
        "lacks": [lack._asdict() for lack in lacks(facts, several=True)],
    }


def _kernel_module() -> str | None:
    """Return what the driver's part in the kernel says of itself."""
    try:
        first = Path("/proc/driver/nvidia/version").read_text().partition("\n")[0]
    except OSError:
        return None
    return first.partition(":")[2].strip()


def _dotted(version: tuple[int, int] | None) -> str | None:
    return None if version is None else ".".join(map(str, version))


def native(layer: str) -> dict[str, Any] | None:
    """Return where the native core of a layer lies and what it was compiled for, or None."""
    try:
        module = importlib.import_module(f"fourfold.{layer}._native")
    except ImportError:
        return None
    return {"file": module.__file__, "arch": getattr(module, "ARCH", None)}
