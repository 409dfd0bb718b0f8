"""`fourfold train` on real ranks, with rows in three tiers.

Starting ranks takes longer than what they do here, so that tests share a run where they look at it
only.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import h5py
import pytest
import torch
from ranks import Ended
from tiered_job import train, write_job


@dataclass(frozen=True)
class Run:
    """A run that came to its end."""

    job: Path
    folder: Path
    ended: Ended

    @property
    def lines(self) -> list[dict]:
        """What it wrote to metrics.jsonl."""
        text = (self.folder / "metrics.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def tiered(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The job as it is, traced."""
    job = write_job(tmp_path_factory.mktemp("tiered"))
    ended = train(job, "--trace", "--train.log_every=40")
    return Run(job, job.parent / "runs" / "one", ended)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return write_job(tmp_path)


def test_a_run_on_three_tiers_leaves_figures_files_and_traces(tiered: Run) -> None:
    ended, run, lines = tiered.ended, tiered.folder, tiered.lines

    assert ended.code == 0, ended.output
    assert "tiers of a rank, when full: pad 256 KiB, host 2.00 MiB, file " in ended.output
    assert re.search(r"step +80 .* starved .* stalled .* hit rate 0\.\d{4}  rows", ended.output)
    assert [line["step"] for line in lines] == [40, 80]
    for line in lines:
        assert 0 < line["hit_rate"] < 1
        hits = [line[f"{tier}_hits"] for tier in ("pad", "host", "file")]
        assert line["hit_rate"] == pytest.approx(hits[0] / (sum(hits) + line["born"]))
        assert 0 < line["pad_bytes"] <= 2 * (256 << 10)
        assert 0 < line["host_bytes"] <= 2 * (2 << 20)
        stages = {"read_s", "read_stalled_s", "starved_s", "fetch_wait_s", "fetch_s", "write_s"}
        for stage in ("route", "plan"):
            stages |= {f"{stage}_s", f"{stage}_starved_s", f"{stage}_stalled_s"}
        assert stages <= line.keys()
    assert lines[1]["file_hits"] > 0
    assert lines[1]["file_read_bytes"] > 0
    for rank in range(2):
        with h5py.File(run / "rows" / f"rank-{rank:04d}.h5") as file:
            assert list(file)
        trace = json.loads((run / "trace" / f"rank-{rank:04d}.json").read_text())
        names = {e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
        assert names == {"step", "read", "route", "plan", "fetch", "write"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_gpus_a_job_says_so_and_trains_or_ends_before_any_work(
    tiered: Run, job: Path
) -> None:
    shown = tiered.ended.output
    assert re.search(r"all ranks on the CPU .*auto.*: ranks 0-1: no working NVIDIA", shown)
    assert 'device = "cpu"' in (tiered.folder / "config.toml").read_text()

    refused = train(job, "--world.device=cuda")
    assert refused.code == 2
    assert refused.output.count('world.device = "cuda", but not every rank has a GPU') == 1
    for_cpus = "no CUDA build of torch" if torch.version.cuda is None else "no working NVIDIA"
    assert f"ranks 0-1: {for_cpus}" in refused.output
    assert not (job.parent / "runs").exists()

    mixed = train(job, "--world.embedding_device=cpu")
    assert mixed.code == 2
    assert "ranks 0-1 hold rows and run the dense model" in mixed.output


def test_the_same_job_in_one_tier_has_no_such_figures(tiered: Run, job: Path) -> None:
    one = ("--storage.pad_bytes=none", "--storage.host_bytes=none", "--storage.file_bytes=none")
    ended = train(job, *one, "--train.log_every=40")
    run = Run(job, job.parent / "runs" / "one", ended)
    lines = run.lines

    assert ended.code == 0, ended.output
    assert sorted(p.name for p in run.folder.iterdir()) == [
        "config.toml", "env.json", "log", "metrics.jsonl"
    ]  # fmt: skip
    assert "hit rate" not in ended.output
    assert "population" not in lines[0]
    assert "refused" not in ended.output
    assert not {"hit_rate", "file_hits", "fetch_s", "pad_bytes"} & lines[0].keys()
    losses = [line["loss"] for line in tiered.lines]
    assert losses == [line["loss"] for line in lines]  # bit for bit


def test_a_fixed_look_ahead_without_room_ends_the_run(job: Path) -> None:
    ended = train(job, "--storage.fixed_lookahead=true", "--train.lookahead=12")

    assert ended.code != 0
    assert "room for 13 batches at once: raise storage.pad_bytes" in ended.output
    assert ended.seconds < 30


def test_a_second_run_on_the_same_folder_is_refused(tiered: Run) -> None:
    rows = f"--storage.folder={tiered.folder / 'rows'}"
    second = train(tiered.job, rows, "--run.name=two")

    assert tiered.ended.code == 0, tiered.ended.output
    assert second.code != 0
    assert "rows/rank-0000.h5" in second.output
    assert second.output.count("StorageError") == 1  # all ranks say the same
    assert second.seconds < 30


FORGETFUL = (
    *("--storage.pad_bytes=none", "--storage.host_bytes=none", "--storage.file_bytes=none"),
    *(
        "--reclaim.by=kraken",
        "--reclaim.rows=2000",
        "--reclaim.interval=10",
        "--train.log_every=20",
    ),
)


def test_a_run_whose_rows_come_and_go_reports_them_by_table(job: Path) -> None:
    ended = train(job, *FORGETFUL)
    lines = Run(job, job.parent / "runs" / "one", ended).lines
    tables = [line["population"] for line in lines]
    total = {name: sum(t["user"][name] for t in tables) for name in tables[0]["user"]}
    last = tables[-1]

    assert ended.code == 0, ended.output
    assert [set(t) for t in tables] == [{"user", "item"}] * 4
    assert {t["item"]["rows"] for t in tables} == {500}
    assert sum(t["item"]["admitted"] for t in tables) == 500
    assert 1_000 < last["user"]["rows"] < 8_000  # two ranks, and what is not swept yet
    assert total["admitted"] - total["reclaimed"] == last["user"]["rows"]
    assert total["reclaimed"] > 5_000
    assert total["refused"] == total["expired"] == 0
    rows = last["user"]["rows"] + 500
    gone = last["user"]["reclaimed"]
    shown = rf"step +80 .* rows +{rows:,} \(\+{last['user']['admitted']:,} -{gone:,}, 0 refused\)"
    assert re.search(shown, ended.output)
    assert re.search(
        rf"rows: {rows:,} at the end \(.* MiB\); {total['admitted'] + 500:,} admitted, 0 refused,"
        rf" 0 expired, {total['reclaimed']:,} reclaimed",
        ended.output,
    )
