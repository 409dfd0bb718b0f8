"""One rank fails: all ranks end soon, and its name and message are the last thing printed."""

import re
import socket
from pathlib import Path

import pytest
from ranks import run_alone, run_ranks

FAILING_RANK = str(Path(__file__).with_name("failing_rank.py"))
SECONDS = 30
HOST = re.escape(socket.gethostname())


def test_ranks_that_do_not_fail() -> None:
    ended = run_ranks(2, FAILING_RANK, "done")

    assert (ended.code, ended.output) == (0, "")


@pytest.mark.parametrize(
    ("way", "num_ranks", "message"),
    [
        ("raise", 2, "DataError: part.tsv: line 3: torn"),
        ("bug", 2, "KeyError: 'weights'"),
        ("bug", 4, "KeyError: 'weights'"),
        ("thread", 2, "ValueError: invalid literal for int() with base 10: 'x'"),
        ("exit 0", 2, "SystemExit: 0"),
        ("exit 0", 4, "SystemExit: 0"),
        ("exit 3", 2, "SystemExit: 3"),
        ("interrupt", 2, "interrupted"),
    ],
)
def test_the_failing_rank_has_the_last_word(way: str, num_ranks: int, message: str) -> None:
    ended = run_ranks(num_ranks, FAILING_RANK, way)

    last = num_ranks - 1
    assert ended.last_line == f"[rank {last}/{num_ranks} {socket.gethostname()}] {message}"
    assert ended.code != 0
    assert ended.seconds < SECONDS
    assert ("Traceback" in ended.output) == (way in ("bug", "thread"))


def test_a_mistake_that_only_one_rank_sees() -> None:
    ended = run_ranks(2, FAILING_RANK, "config on one")

    assert ended.last_line.endswith("] job.toml: train.stepz: unknown key")
    assert ended.last_line.startswith("[rank 1/2 ")
    assert ended.code != 0
    assert ended.seconds < SECONDS


@pytest.mark.parametrize("way", ["kill", "term", "crash"])
def test_a_rank_that_dies_without_a_word_ends_the_others(way: str) -> None:
    ended = run_ranks(2, FAILING_RANK, way)

    assert ended.code != 0
    assert ended.seconds < SECONDS
    assert ("in string_at" in ended.output) == (way == "crash")  # where Python was


def test_all_ranks_fail_alike() -> None:
    ended = run_ranks(4, FAILING_RANK, "all")

    assert re.fullmatch(
        rf"\[ranks 0-3/4 {HOST}\] DataError: part\.tsv: line 3: torn\n", ended.output
    )
    assert ended.code == 1
    assert ended.seconds < SECONDS


def test_all_ranks_fail_each_for_its_own_reason() -> None:
    ended = run_ranks(2, FAILING_RANK, "each")

    lines = ended.output.splitlines()
    assert [re.sub(r"^\[(.*?) \S+\]", r"\1:", line) for line in lines] == [
        f"rank {rank}/2: DataError: part-{rank}.tsv: line 3: torn" for rank in range(2)
    ]
    assert ended.code == 1


def test_a_mistake_in_the_job_is_printed_once() -> None:
    ended = run_ranks(4, FAILING_RANK, "config")

    assert ended.code == 2
    assert ended.output.startswith("fourfold: error: job.toml: train.stepz: unknown key\n")
    assert ended.output.count("stepz") == 1
    assert ended.seconds < SECONDS


def test_the_traceback_is_in_the_log_of_the_rank(tmp_path: Path) -> None:
    ended = run_ranks(2, FAILING_RANK, "logged", str(tmp_path))

    log = tmp_path / "run" / "log" / "rank-0001.log"
    assert ended.output.count("\n") == 1
    assert "rank-0001.log)" in ended.last_line
    assert "Traceback" in log.read_text()
    assert "in fail\n" in log.read_text()
    assert "Traceback" not in (log.parent / "rank-0000.log").read_text()


@pytest.mark.parametrize(
    ("way", "code", "message"),
    [
        ("raise", 1, "DataError: part.tsv: line 3: torn"),
        ("config", 2, "job.toml: train.stepz: unknown key"),
        ("interrupt", 130, "interrupted"),
    ],
)
def test_one_rank_without_mpirun(way: str, code: int, message: str) -> None:
    ended = run_alone(FAILING_RANK, way)

    assert (ended.code, ended.output) == (code, f"fourfold: error: {message}\n")
