"""`fourfold bench tiers` in small: variants train alike, policies rank as they must, no file stays.

The step checks the losses of its variants itself.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fourfold.jobs import bench_tiers, bench_traffic

STEP = ("--rows", "40000", "--batch", "64", "--dim", "16", "--rounds", "1", "--steps", "2")
FILE = ("--host-share", "0.8", "--buffered")
TINY = (*STEP, *FILE, "--warm", "20", "--keys", "500", "--plan-rounds", "2")


def run(capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser()
    bench_tiers.add_arguments(parser)
    assert bench_tiers.run(parser.parse_args([*TINY, *options])) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_part_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, "--json", "--traffic-rows", "20000", "--folder", str(tmp_path))

    steps = [line["step"] for line in lines if "step" in line]
    plans = [line["plan"] for line in lines if "plan" in line]
    traffic = [line["traffic"] for line in lines if "traffic" in line]
    assert [step["variant"] for step in steps] == ["memory", "host", "file"]
    memory, host, file = (step["traffic"] for step in steps)
    assert not memory
    assert 0 < host["hit_rate"] < 1
    assert host["host_hits"] > 0
    assert file["file_hits"] > 0
    assert host["born"] == file["born"] == 0
    assert [plan["threads"] for plan in plans] == [1, 2]
    assert all(0.85 < plan["hit_rate"] < 0.95 and plan["ratio"] > 0 for plan in plans)
    assert [point["locality"] for point in traffic] == ["low", "medium", "high"]
    for point in traffic:
        assert point["optimum"] < point["pad"]["2/32"] < point["pad"]["2/2"] < 1.1 * point["lru"]
    assert list(tmp_path.iterdir()) == []


def test_the_policies_move_what_paper_and_pencil_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_traffic, "WARM", 0)
    monkeypatch.setattr(bench_traffic, "MEASURED", 6)
    batches = [np.array([row]) for row in (0, 1, 2, 0, 1, 2)]

    lru = bench_traffic.simulate(batches, bench_traffic.by_last_use(batches), 3, 2)
    optimum = bench_traffic.simulate(batches, bench_traffic.by_next_use(batches, 3), 3, 2)

    assert lru == (6 + 4) / 6  # always the wrong one
    assert optimum == (4 + 2) / 6  # 2 for 1, then 1 or 2 for a row that is not needed any more
