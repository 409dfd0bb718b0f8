"""The GPU kernels of storage and comm: found, compiled by NVRTC, loaded into a GPU.

CuPy brings NVRTC and puts what it compiles into the device's primary context, which torch and
`Device` (storage/native/device.h) use, too. It is imported when a kernel is wanted, and no part of
Fourfold needs it on the CPU.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.resources
import os
import re
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fourfold.runtime.errors import ConfigError

INSTALL = 'pip install "fourfold[cuda13]", or "fourfold[cuda12]" with a driver older than 580'

OPTIONS = (
    "-std=c++17",
    # Arithmetic as the CPU's: subnormal numbers stay, quotients and roots are rounded correctly,
    # and a product is rounded before it is added unless the source says fma.
    *("-ftz=false", "-prec-div=true", "-prec-sqrt=true", "-fmad=false"),
    # NVRTC 12 takes generic lambdas inside kernels for functions of the host, and refuses them.
    "-default-device",
)

_loaded: dict[tuple[int, tuple[Path, ...]], tuple[list[Any], dict[str, int]]] = {}


def folders() -> list[Path]:
    """Where the native code of both packages lies."""
    packages = ("fourfold.storage", "fourfold.comm")
    return [Path(str(importlib.resources.files(name) / "native")) for name in packages]


def sources() -> list[Path]:
    """The .cu files of both packages."""
    return sorted(path for folder in folders() for path in folder.glob("*.cu"))


def cubin(source: Path, arch: str, defines: Sequence[str] = ()) -> bytes:
    """Compile a .cu file for one architecture, like "sm_90"; no GPU is needed.

    defines: "NAME=value" each. Headers are found in folders() and beside the source. What the
    compiler warns of becomes a warning. Raises ConfigError where CuPy or NVRTC is missing, and
    RuntimeError with the compiler's messages for a source that does not compile.
    """
    nvrtc = _nvrtc()
    options = (
        *OPTIONS,
        f"-arch={arch}",
        *(f"-D{define}" for define in defines),
        *(f"-I{folder}" for folder in [*folders(), source.parent]),
    )
    program = nvrtc.createProgram(source.read_text(), str(source), (), ())
    try:
        nvrtc.compileProgram(program, options)
        code: bytes = nvrtc.getCUBIN(program)
        log = nvrtc.getProgramLog(program).strip()
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program).strip()
        raise RuntimeError(f"{source} does not compile for {arch}: {error}\n{log}") from None
    finally:
        nvrtc.destroyProgram(program)
    if log:
        warnings.warn(f"{source}, {arch}: {log}", stacklevel=2)
    return code


def names(code: bytes) -> list[str]:
    """The kernels in a cubin."""
    # Each has a section for its arguments; the names of sections are plain text in the file.
    found = re.findall(rb"\0\.nv\.constant0\.(\w+)(?=\0)", code)
    return sorted({name.decode() for name in found})


def load(ordinal: int, files: Sequence[Path] | None = None) -> dict[str, int]:
    """Compile and load kernels into a GPU; returns the CUfunction of each by name.

    They stay loaded until the process ends, and a second call gives the same ones. files: .cu
    files, by default sources(). Raises ConfigError where CuPy, NVRTC or the GPU is missing.
    """
    key = (ordinal, tuple(sources() if files is None else files))
    if key not in _loaded:
        cupy = _cupy()
        arch = f"sm_{_device(cupy, ordinal).compute_capability}"
        modules: list[Any] = []
        functions: dict[str, int] = {}
        with cupy.cuda.Device(ordinal):
            for source in key[1]:
                code = _cached_cubin(source, arch)
                module = cupy.cuda.function.Module()
                module.load(code)
                modules.append(module)  # goes with its kernels
                functions |= {name: int(module.get_function(name).ptr) for name in names(code)}
        _loaded[key] = (modules, functions)
    return dict(_loaded[key][1])


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise ConfigError(
            f"a GPU needs CuPy, which cannot be imported ({error}): {INSTALL}"
        ) from None
    return cupy


@functools.cache
def _nvrtc() -> Any:
    _cupy()
    from cupy.cuda import nvrtc

    try:
        nvrtc.getVersion()
    except (RuntimeError, OSError, ImportError) as error:
        raise ConfigError(
            f"kernels are compiled by NVRTC, which CuPy cannot load ({error}): {INSTALL}"
        ) from None
    return nvrtc


def _device(cupy: Any, ordinal: int) -> Any:
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise ConfigError(
            f"no GPU can be used ({error}): install NVIDIA's driver, or ask for the CPU"
        ) from None
    if not 0 <= ordinal < count:
        raise ConfigError(
            f"GPU {ordinal} is asked for, and {count} are visible: set CUDA_VISIBLE_DEVICES, start "
            "fewer ranks on this node, or ask for the CPU"
        )
    return cupy.cuda.Device(ordinal)


def _cached_cubin(source: Path, arch: str) -> bytes:
    """Like cubin(), from the cache of the user where nothing has changed."""
    digest = hashlib.sha256(repr((_nvrtc().getVersion(), arch, OPTIONS)).encode())
    headers = sorted(path for folder in folders() for path in folder.glob("*.h"))
    for path in [source, *headers, *sorted(source.parent.glob("*.h"))]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fourfold/kernels"
    cached = root / f"{source.stem}-{arch}-{digest.hexdigest()[:32]}.cubin"
    with contextlib.suppress(OSError):
        return cached.read_bytes()
    code = cubin(source, arch)
    with contextlib.suppress(OSError):  # a home that cannot be written to costs time only
        root.mkdir(parents=True, exist_ok=True)
        # A process of another node may have the same id and share the folder.
        with tempfile.NamedTemporaryFile(dir=root, suffix=".unfinished", delete=False) as file:
            file.write(code)
        Path(file.name).replace(cached)
    return code
