"""`fourfold bench device` where there is no GPU that it can use: it says so before any work."""

from __future__ import annotations

import argparse

import pytest

from fourfold.jobs import bench_cuda, bench_device
from fourfold.launch.failure import exit_code
from fourfold.runtime.driver import Driver, Gpu
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.gpu import GpuFacts


def arguments(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench_device.add_arguments(parser)
    return parser.parse_args(options)


def test_without_a_gpu_it_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_cuda, "find_facts", GpuFacts)

    with pytest.raises(ConfigError) as caught:
        bench_device.run(arguments())

    assert exit_code(caught.value) == 2
    for part in ("no GPU", "no CUDA build of torch", "no CuPy", "pip install"):
        assert part in str(caught.value)
    assert capsys.readouterr().out == ""


def test_a_gpu_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Gpu("Tesla V100", 16 << 30, (7, 0), "GPU-0")
    facts = GpuFacts(Driver((13, 0), (old,)), None, "13.0", "14.0", "13.0")
    monkeypatch.setattr(bench_cuda, "find_facts", lambda: facts)

    with pytest.raises(ConfigError, match=r"8\.0 or more: Tesla V100 has 7\.0"):
        bench_cuda.check_gpu()


@pytest.mark.parametrize("options", [("--rounds", "0"), ("--threads", "0")])
def test_rounds_and_threads_are_positive(options: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        bench_device.run(arguments(*options))
