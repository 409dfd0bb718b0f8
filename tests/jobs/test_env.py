"""What `fourfold env` says of GPUs: of machines that are imagined."""

from __future__ import annotations

import json

import pytest

from fourfold.jobs import env
from fourfold.runtime import environment
from fourfold.runtime.driver import Driver, Gpu
from fourfold.runtime.gpu import GpuFacts

NOTHING = GpuFacts(Driver(problem="libcuda.so.1: cannot open shared object file"))
WHOLE = GpuFacts(
    Driver((13, 0), tuple(Gpu(f"H100 {i}", 80 << 30, (9, 0), str(i)) for i in range(2))),
    visible="4,5",
    torch_cuda="13.0",
    cupy="14.2.0",
    nvrtc="13.0",
    nccl="2.28.3",
)


def report(facts: GpuFacts, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, object]]:
    """The table and the JSON on a machine where a process finds this."""
    monkeypatch.setattr(environment, "find_facts", lambda **_: facts)
    found = environment.describe()
    found |= {"launcher": None, "fp32_products": "", "missing": env.missing(found)}
    return env.table(found), json.loads(json.dumps(found))


def test_gpus_are_listed_by_ordinal_with_all_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    text, found = report(WHOLE, monkeypatch)
    lines = text.splitlines()

    assert "gpu       0: H100 0, 80.0 GiB, compute capability 9.0" in lines
    assert "gpu       1: H100 1, 80.0 GiB, compute capability 9.0" in lines
    assert (
        "cuda      driver 13.0, torch 13.0, NVRTC 13.0; CuPy 14.2.0, NCCL 2.28.3; kernels compile"
        " (CUDA_VISIBLE_DEVICES='4,5')"
    ) in lines
    assert "ranks on GPUs" not in text
    assert found["gpu"]["devices"][1]["capability"] == [9, 0]


def test_what_gpus_need_is_named_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    text, found = report(NOTHING, monkeypatch)
    advice = [line for line in text.splitlines() if "for ranks on GPUs: " in line]

    assert "gpu       none" in text.splitlines()
    assert "kernels do not compile" in text
    for line, (name, remedy) in zip(
        advice,
        (("driver", "launcher"), ("torch", "pip"), ("CuPy", "pip"), ("NCCL", "pip")),
        strict=True,
    ):
        assert name in line
        assert remedy in line
    assert len(found["gpu"]["lacks"]) == 4


def test_describing_a_machine_loads_no_cupy() -> None:
    """A run describes its machine; only `fourfold env` looks as far as that."""
    found = environment.gpu()

    assert found["nvrtc"] is None or found["devices"]
