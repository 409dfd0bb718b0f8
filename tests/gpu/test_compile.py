"""Every kernel of the tree compiles for GPUs, and fits into their registers."""

from __future__ import annotations

import sys

import cubin
import gpu
import pytest

from fourfold.runtime import kernels
from fourfold.runtime.errors import ConfigError

STACK_BYTES: dict[str, int] = {}
"""Kernels that may have local memory, and how much; none of the others may."""
SHARED_BYTES = 48 << 10
"""Of a block, without asking the driver for more."""


@pytest.fixture(scope="module")
def compiled():
    with cubin.compiled() as codes:
        yield codes


@pytest.mark.parametrize("arch", cubin.ARCHITECTURES)
@pytest.mark.parametrize("source", gpu.cuda_sources(), ids=lambda path: path.name)
def test_kernels_compile_without_warnings_and_spill_nothing(compiled, source, arch):
    used = cubin.usage(compiled[source, arch].result())

    assert used
    for name, use in used.items():
        assert 0 < use.registers <= 255, name
        assert use.stack_bytes <= STACK_BYTES.get(name, 0), name
        assert use.shared_bytes <= SHARED_BYTES, name


def test_usage_sees_what_is_spilled(tmp_path):
    source = tmp_path / "spill.cu"
    source.write_text("""
        #include "kernel.h"
        struct Args { float* x; int n; };
        FF_KERNEL(spills, Args, 1024) {
          float v[64];
          for (int i = 0; i < 64; ++i) v[i] = args.x[threadIdx.x + i * 1024];
          for (int k = 0; k < args.n; ++k)
            for (int i = 0; i < 64; ++i) v[i] = v[i] * v[(i * 7 + 3) % 64] + v[(i + 11) % 64];
          for (int i = 0; i < 64; ++i) args.x[threadIdx.x + i * 1024] = v[i];
        }
        FF_KERNEL(shares, Args, 32) {
          __shared__ float s[50];
          s[threadIdx.x] = args.x[threadIdx.x];
          __syncthreads();
          args.x[threadIdx.x] = s[31 - threadIdx.x];
        }
    """)
    used = cubin.usage(kernels.cubin(source, "sm_80"))

    assert set(used) == {"spills", "shares"}
    assert used["spills"].stack_bytes > 0
    assert used["spills"].registers == 64  # all that 1024 threads can have
    assert used["shares"].stack_bytes == 0
    assert used["shares"].shared_bytes == 200


def test_the_stand_in_has_the_same_kernels(compiled):
    codes = [compiled[path, "sm_90"].result() for path in gpu.cuda_sources()]

    assert sorted(name for code in codes for name in kernels.names(code)) == sorted(
        gpu.driver().kernels
    )


def test_the_packages_have_the_sources_of_the_tree():
    tree = [path for path in gpu.cuda_sources() if path.parent != gpu.HERE]

    assert [path.name for path in kernels.sources()] == [path.name for path in tree]
    assert all((folder / "kernel.h").exists() for folder in kernels.folders()[:1])


def test_a_warning_of_the_compiler_is_one_here(tmp_path):
    source = tmp_path / "warns.cu"
    source.write_text('#include "kernel.h"\nFF_KERNEL(warns, int, 32) { int unused; }\n')

    with pytest.warns(UserWarning, match=r"warns\.cu, sm_90: .*unused"):
        kernels.cubin(source, "sm_90")


def test_a_source_that_does_not_compile_is_named_with_its_line(tmp_path):
    source = tmp_path / "wrong.cu"
    source.write_text('#include "kernel.h"\nFF_KERNEL(wrong, int, 32) { nonsense(); }\n')

    with pytest.raises(
        RuntimeError, match=r"(?s)wrong\.cu does not compile .*wrong\.cu\(2\).*nonse"
    ):
        kernels.cubin(source, "sm_90")


def test_defines_reach_the_compiler(tmp_path):
    source = tmp_path / "named.cu"
    source.write_text('#include "kernel.h"\nFF_KERNEL(NAME, int, 32) {}\n')

    assert kernels.names(kernels.cubin(source, "sm_90", ["NAME=chosen"])) == ["chosen"]


def test_without_cupy_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(kernels, "_loaded", {})  # by another test, where there is a GPU
    monkeypatch.setitem(sys.modules, "cupy", None)

    with pytest.raises(ConfigError, match=r'needs CuPy.*pip install "fourfold\[cuda13\]"'):
        kernels.load(0)


@pytest.mark.skipif("cuda" in gpu.devices(), reason="there is a GPU")
def test_without_a_gpu_the_error_says_what_to_do():
    with pytest.raises(ConfigError, match=r"no GPU can be used.*install NVIDIA's driver"):
        kernels.load(0)


@pytest.mark.skipif("cuda" not in gpu.devices(), reason="there is no GPU")
def test_kernels_are_loaded_once_and_an_ordinal_beyond_them_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    loaded = kernels.load(0, gpu.cuda_sources())

    assert sorted(loaded) == sorted(gpu.driver().kernels)
    assert kernels.load(0, gpu.cuda_sources()) == loaded
    with pytest.raises(ConfigError, match="GPU 99 is asked for"):
        kernels.load(99)


def test_an_unchanged_kernel_is_not_compiled_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "kernel.cu"
    source.write_text('#include "kernel.h"\n#include "own.h"\nFF_KERNEL(FIRST, int, 32) {}\n')
    header = tmp_path / "own.h"
    header.write_text("#define FIRST one\n")
    first = kernels._cached_cubin(source, "sm_90")
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "cubin", None)
        assert kernels._cached_cubin(source, "sm_90") == first

    header.write_text("#define FIRST two\n")
    assert kernels.names(kernels._cached_cubin(source, "sm_90")) == ["two"]
