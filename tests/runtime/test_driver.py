"""The CUDA driver is asked by its own functions: those of a library made here, and a GPU's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from fourfold.runtime.driver import Driver, Gpu, ask_driver
from fourfold.runtime.gpu import find_facts

LIBCUDA = """
#include <string.h>
int cuDriverGetVersion(int* version) { *version = 12080; return 0; }
int cuInit(unsigned flags) { (void)flags; return INIT; }
int cuGetErrorString(int code, const char** text) { (void)code; *text = "is asleep"; return 0; }
int cuDeviceGetCount(int* count) { *count = 2; return 0; }
int cuDeviceGet(int* device, int ordinal) { *device = 10 + ordinal; return 0; }
int cuDeviceGetName(char* name, int length, int device) {
  strncpy(name, device == 10 ? "first" : "second", length);
  return 0;
}
int cuDeviceTotalMem_v2(size_t* bytes, int device) { *bytes = (size_t)device << 33; return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  *value = attribute == 75 ? device - 2 : attribute == 76 ? 6 : -1;
  return 0;
}
int cuDeviceGetUuid_v2(char* uuid, int device) { memset(uuid, device, 16); return 0; }
"""


@pytest.fixture
def library(tmp_path: Path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler is not None  # the native cores were built by one

    def build(init: int = 0, source: str = LIBCUDA) -> str:
        (tmp_path / "cuda.c").write_text(source)
        made = str(tmp_path / f"libcuda-{init}.so")
        command = [compiler, "-shared", "-fPIC", f"-DINIT={init}", "-o", made, tmp_path / "cuda.c"]
        subprocess.run(command, check=True)
        return made

    return build


def test_it_describes_the_gpus_in_order(library) -> None:
    assert ask_driver(library()) == Driver(
        (12, 8),
        (
            Gpu("first", 10 << 33, (8, 6), "0a" * 16),
            Gpu("second", 11 << 33, (9, 6), "0b" * 16),
        ),
    )


def test_a_driver_without_gpus_is_no_problem(library) -> None:
    assert ask_driver(library(100)) == Driver((12, 8))


def test_a_driver_that_does_not_start_says_why(library) -> None:
    found = ask_driver(library(999))

    assert found.problem == "the driver does not start: error 999, is asleep"
    assert (found.cuda, found.gpus) == ((12, 8), ())


def test_no_driver_and_no_such_driver_are_told_and_not_raised(library) -> None:
    assert ask_driver("libcuda-none.so") == Driver(problem="libcuda-none.so not found")
    other = library(source="int nothing;")
    assert ask_driver(other).problem.startswith(f"{other} does not work: ")
    assert "cuDriverGetVersion" in ask_driver(other).problem


def test_facts_of_a_process_are_plain(library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    found = find_facts(library())

    assert [gpu.name for gpu in found.driver.gpus] == ["first", "second"]
    assert found.visible == "3,1"
    assert found.torch_cuda == torch.version.cuda


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
def test_torch_and_the_driver_see_the_same_gpus() -> None:
    seen = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]

    assert [(g.name, g.capability) for g in ask_driver().gpus] == [
        (p.name, (p.major, p.minor)) for p in seen
    ]
