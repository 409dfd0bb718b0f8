"""The trace of a run, and the stopwatches that fill it."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from mpi4py import MPI
from training import FEATURES, Case, Model, Shard, tables

from fourfold.comm.cut import Cut
from fourfold.comm.placement import Placement
from fourfold.runtime.assembly import create_bags
from fourfold.runtime.roles import Roles
from fourfold.runtime.stopwatch import Stopwatch
from fourfold.runtime.table import EmbeddingConfig, complete_tables
from fourfold.runtime.trace import Span, Trace
from fourfold.runtime.train_config import TrainConfig
from fourfold.runtime.trainer import Trainer


def load(trace: Trace, path: Path) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """The spans by row, in order, and the whole file. Also: spans of a row nest."""
    trace.save(path)
    content = json.loads(path.read_text())
    names = {
        e["tid"]: e["args"]["name"] for e in content["traceEvents"] if e["name"] == "thread_name"
    }
    rows = defaultdict(list)
    for event in content["traceEvents"]:
        if event["ph"] == "X":
            assert event["dur"] >= 0
            rows[names[event["tid"]]].append(event)
    for events in rows.values():
        open_until: list[float] = []
        for event in events:
            begin, end = event["ts"], event["ts"] + event["dur"]
            while open_until and begin >= open_until[-1] - 1e-3:
                open_until.pop()
            assert all(end <= outer + 1e-3 for outer in open_until)
            open_until.append(end)
    return rows, content


def test_a_trace_is_chrome_json(tmp_path: Path) -> None:
    trace = Trace(rank=3)
    trace.add(Span("fetch", "rows from file", 1_000_000_100, 1_000_003_000, rows=17))
    trace.add(Span("step", "gather", 2_000, 3_000, batch=1))
    trace.add(Span("step", "step", 2_000, 9_500, batch=1))
    rows, content = load(trace, tmp_path / "trace" / "rank-0003.json")

    assert list(content) == ["displayTimeUnit", "otherData", "traceEvents"]
    assert content["otherData"] == {"rank": 3, "spans_dropped": 0}
    assert {e["pid"] for e in content["traceEvents"]} == {3}
    assert content["traceEvents"][0]["args"] == {"name": "rank 3"}
    assert [e["name"] for e in rows["step"]] == ["step", "gather"]  # the outer one first
    assert rows["step"][0] | {"args": 0} == {
        "ph": "X", "name": "step", "pid": 3, "tid": 1, "ts": 2.0, "dur": 7.5, "args": 0
    }  # fmt: skip
    assert rows["step"][0]["args"] == {"batch": 1}
    assert rows["fetch"][0]["args"] == {"rows": 17}
    assert rows["fetch"][0]["ts"] == 1_000_000.1


def test_the_last_spans_are_kept(tmp_path: Path) -> None:
    trace = Trace(most=10)
    for n in range(25):
        trace.add(Span("step", "step", n, n + 1, n))
    rows, content = load(trace, tmp_path / "t.json")

    assert [e["args"]["batch"] for e in rows["step"]] == list(range(15, 25))
    assert content["otherData"]["spans_dropped"] == 15


def test_laps_nest_and_their_seconds_are_their_own() -> None:
    trace = Trace()
    watch = Stopwatch("step", ("rest", "never"), trace)
    watch.batch = 7
    with watch("rest", shown="step"):
        with watch("model"):
            time.sleep(0.02)
            with watch("forward_exchange"):
                time.sleep(0.05)
        time.sleep(0.01)
    seconds = watch.take()

    assert seconds["forward_exchange"] >= 0.05
    assert 0.02 <= seconds["model"] < 0.05
    assert 0.01 <= seconds["rest"] < 0.04
    assert seconds["never"] == 0
    assert sum(watch.take().values()) == 0
    inner, model, step = trace.spans
    assert (inner.name, model.name, step.name) == ("forward exchange", "model", "step")
    assert step.begin_ns <= model.begin_ns <= inner.begin_ns <= inner.end_ns <= model.end_ns
    assert {span.batch for span in trace.spans} == {7}
    assert sum(seconds.values()) == pytest.approx((step.end_ns - step.begin_ns) / 1e9)


def test_laps_aside_are_not_counted_and_errors_end_laps() -> None:
    watch = Stopwatch("step")
    with watch.aside(), watch("evaluate"):
        pass
    with pytest.raises(KeyError), watch("outer"), watch("inner"):
        raise KeyError
    with watch("after"):
        time.sleep(0.001)

    assert set(watch.take()) == {"outer", "inner", "after"}


def test_another_thread_may_take() -> None:
    watch = Stopwatch("step")
    stop = threading.Event()
    took = 0.0

    def work() -> None:
        while not stop.is_set():
            with watch("work"):
                pass

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(200):
        took += watch.take().get("work", 0.0)
    stop.set()
    thread.join()
    took += watch.take()["work"]

    assert took == pytest.approx(watch._total_ns["work"] / 1e9)


class Slow(Model):
    """A model that takes a while, so that there is something to overlap with."""

    def forward(self, dense: Any, embeddings: Any) -> torch.Tensor:
        time.sleep(0.02)
        return super().forward(dense, embeddings)


@pytest.mark.mpi
@pytest.mark.parametrize("lookahead", [0, 3])
def test_a_training_run_is_traced(lookahead: int, mpi_tmp_path: Path) -> None:
    comm, case = MPI.COMM_WORLD, Case()
    everyone = tuple(range(comm.size))
    complete, features = complete_tables(tables(case), EmbeddingConfig(dim=8), FEATURES)
    placement = Placement.of(
        [t.shape for t in complete], [Cut(rows=comm.size, ranks=everyone)] * 3, comm.size
    )
    bags = create_bags(complete, features, comm, Roles(comm.size, everyone, everyone), placement)
    trace = Trace(comm.rank)
    config = TrainConfig(batch_size=13, lookahead=lookahead)
    trainer = Trainer(Slow(sum(bags.pooled_features[1]), 8), bags, config, trace=trace)
    steps = sum(1 for _ in trainer.steps(Shard(case, comm.rank, comm.size, steps=8)))
    trainer.evaluate(Shard(case, comm.rank, comm.size, steps=2))
    bags.close()
    rows, _ = load(trace, mpi_tmp_path / f"{comm.rank}.json")

    for row in ("read", "route", "plan"):
        own = [e for e in rows[row] if e["name"] == row]
        assert [e["args"]["batch"] for e in own][:steps] == list(range(1, 9)), row
    whole = [e for e in rows["step"] if e["name"] == "step"]
    assert [e["args"]["batch"] for e in whole] == list(range(1, 9))
    stages = {"gather", "model", "forward exchange", "backward", "backward exchange", "update"}
    for step in whole:
        inside = {
            e["name"]
            for e in rows["step"]
            if step["ts"] <= e["ts"] < step["ts"] + step["dur"] and e is not step
        }
        assert stages <= inside
    routed = {e["args"]["batch"]: e["ts"] for e in rows["route"] if e["name"] == "route"}
    early = sum(routed[s["args"]["batch"] + 1] < s["ts"] + s["dur"] for s in whole[:-1])
    assert early == (7 if lookahead else 0)  # the next batch is routed while one trains
    assert "evaluate" in {e["name"] for e in rows["step"]}
