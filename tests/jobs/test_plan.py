"""`fourfold plan` as a person types it."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fourfold.comm.errors import PlacementError
from fourfold.comm.placement import Placement
from fourfold.comm.tile import Shape
from fourfold.jobs import plan
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.job_file import split_overrides

JOB = """
[data]
kind = "csv"
paths = ["clicks.csv"]
dense = ["age"]
sparse = ["user", "item"]

[embedding]
dim = 16

[[table]]
name = "user"
rows = 100000

[[table]]
name = "item"
rows = 500

[model]
bottom = [8]
top = [8]

[train]
batch_size = 64
"""

COMMAND = ("from fourfold.launch.cli import main; import sys; code = main(sys.argv[1:]);"
           " print('mpi4py.MPI' in sys.modules, file=sys.stderr); sys.exit(code)")  # fmt: skip


FORGETFUL = ("--ranks", "2", "--table.user.rows=none")
KRAKEN = ("--reclaim.by=kraken", "--reclaim.rows=5000")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "job.toml").write_text(JOB)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fourfold(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`fourfold plan job.toml ARGUMENTS`, in this process."""

    def run(*arguments: str) -> str:
        parser = argparse.ArgumentParser()
        plan.add_arguments(parser)
        plain, overrides = split_overrides(arguments)
        args = parser.parse_args(["job.toml", *plain])
        args.overrides = overrides
        assert plan.run(args) == 0
        return capsys.readouterr().out

    return run


def test_it_prints_placement_loads_and_stages(fourfold: Callable[..., str]) -> None:
    text = fourfold("--ranks", "4", "--nodes", "2")

    assert "4 ranks on 2 nodes" in text
    assert "assumed, one id per feature" in text
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line}
    assert lines["user"][1:3] == ["100,000", "16"]
    assert lines["load"][-1] == "1.00"
    assert {"gather", "forward", "pool", "dense", "backward", "update", "route"} <= set(lines)
    assert "predicted step" in text


def test_it_looks_at_the_data_if_there_are_any(fourfold: Callable[..., str]) -> None:
    rows = "".join(f"1,0.5,{i % 50},{i % 7}\n" for i in range(300))
    Path("clicks.csv").write_text("label,age,user,item\n" + rows)

    assert "measured on the first 192 samples" in fourfold("--ranks", "2")


def test_json_and_a_saved_placement_that_is_used_again(fourfold: Callable[..., str]) -> None:
    save = "placement.toml"
    found = json.loads(fourfold("--ranks", "3", "--json", "--save", save))
    again = json.loads(fourfold("--ranks", "3", "--json", f"--placement.path={save}"))

    assert found == again
    assert [table["name"] for table in found["tables"]] == ["user", "item"]
    assert sum(found["tier_bytes"]["host"]) >= 100_500 * 72
    assert found["step_s"] == pytest.approx(sum(found["stages_s"].values()))
    shapes = (Shape("user", 16, 100_000), Shape("item", 16, 500))
    Placement.from_toml(Path(save).read_text(), shapes, 3).validate(range(3), range(3))
    with pytest.raises(PlacementError, match="made for 3 ranks"):
        fourfold("--ranks", "2", f"--placement.path={save}")


def test_any_key_can_be_overridden(fourfold: Callable[..., str]) -> None:
    found = json.loads(
        fourfold(
            *("--ranks", "4", "--json", "--world.dense=1", "--world.embedding=3"),
            '--placement.tables={ user = { rows = -1 }, item = { ranks = "2" } }',
        )
    )

    assert found["embedding"] == "1-3"
    assert [(t["cut"], t["ranks"]) for t in found["tables"]] == [("row 3", "1-3"), ("whole", "2")]


TIERS = ("--storage.pad_bytes=64KiB", "--storage.host_bytes=22MiB", "--storage.file_bytes=1GiB")


def test_it_shows_what_every_tier_holds(fourfold: Callable[..., str]) -> None:
    even = "--placement.default={ rows = -1 }"
    arguments = ("--ranks", "2", *TIERS, "--train.lookahead=4", even)
    lines = {line[:24].strip(): line for line in fourfold(*arguments).splitlines()}
    found = json.loads(fourfold(*arguments, "--json"))

    assert lines["bytes, pad"].split()[-3:] == ["64.0", "KiB", "1.00"]
    assert {"bytes, host", "bytes, file", "smallest pad, one batch"} <= set(lines)
    assert "pad for 5 batches" in lines
    assert list(found["tier_bytes"]) == ["pad", "host", "file"]
    assert found["tier_bytes"]["pad"] == [1 << 16] * 2
    assert found["tier_bytes"]["host"] == [22 << 20] * 2
    assert all(0 < n < 1 << 30 for n in found["tier_bytes"]["file"])
    assert all(map(int.__lt__, found["batch_pad_bytes"], found["lookahead_pad_bytes"]))
    assert "batch_pad_bytes" not in json.loads(fourfold("--ranks", "2", "--json"))


def test_it_plans_for_gpus_without_one(fourfold: Callable[..., str]) -> None:
    cuda = ("--ranks", "2", "--world.device=cuda")
    text, found = fourfold(*cuda), json.loads(fourfold(*cuda, "--json"))
    cpu = json.loads(fourfold("--ranks", "2", "--json"))

    assert text.startswith("2 ranks on node0; colocated 0-1; all ranks on GPUs\n")
    assert "bytes, device" in text
    assert (found["dense_device"], found["embedding_device"]) == ("cuda", "cuda")
    assert (cpu["dense_device"], cpu["embedding_device"]) == ("cpu", "cpu")
    rows, beside = found["tier_bytes"]["device"], found["tier_bytes"]["host"]
    assert sum(rows) >= 100_500 * 72
    assert 0.05 < sum(beside) / sum(rows) < 0.12  # a bit and the pages of metadata of each row
    grows = ("--table.user.rows=none", "--table.user.expected_rows=100000")
    dynamic = json.loads(fourfold(*cuda, *grows, "--json"))["tier_bytes"]
    assert sum(dynamic["host"]) > 27 * 100_000  # the index
    assert list(cpu["tier_bytes"]) == ["host"]
    assert found["stages_s"]["gather"] < cpu["stages_s"]["gather"]

    text = fourfold(*cuda, "--storage.pad_bytes=64KiB", "--storage.host_bytes=22MiB")
    assert {"bytes, device", "bytes, host"} <= {line[:13].strip() for line in
                                                         text.splitlines()}  # fmt: skip
    mixed = fourfold(*cuda, "--world.dense=1", "--world.embedding=1",
                     "--world.embedding_device=cpu")  # fmt: skip
    assert "dense ranks on GPUs, embedding ranks on the CPU" in mixed
    assert "bytes, host" in mixed


def test_a_gpu_holds_so_much(fourfold: Callable[..., str]) -> None:
    """A million rows of 72 bytes on one GPU: with 80 MB there is room for 56."""
    one = ("--ranks", "1", "--world.device=cuda", "--table.user.rows=1000000")
    assert fourfold(*one, "--hardware.device_bytes=120MB")
    with pytest.raises(PlacementError, match=r"do not fit.*storage\.pad_bytes on GPUs"):
        fourfold(*one, "--hardware.device_bytes=80MB")


@pytest.mark.parametrize("budget", ["--reclaim.rows=5000", "--storage.host_bytes=1MiB"])
def test_rows_that_go_need_not_all_fit(fourfold: Callable[..., str], budget: str) -> None:
    """A million users are expected; room is found for those that the budgets of two ranks hold."""
    arguments = (*FORGETFUL, "--reclaim.by=kraken", budget)
    text = fourfold(*arguments)
    found = json.loads(fourfold(*arguments, "--json"))

    told = re.search(
        r"\nrows that come and go: budget (.*); protected 0; window (\d+) \(3 batches\)\n", text
    )
    assert told is not None
    assert told[1] in ("5,000 rows per rank", "95% of the memory that other rows leave")
    assert int(told[2]) == max(found["window_rows"])
    assert found["protected_rows"] == [0, 0]
    held = found["tier_bytes"]["host"]
    assert all(5_000 * 72 * 0.9 < n <= 1 << 20 for n in held)
    assert "rows that come" not in fourfold("--ranks", "2")
    assert "window_rows" not in json.loads(fourfold("--ranks", "2", "--json"))


def test_on_gpus_their_index_takes_none_of_the_memory(fourfold: Callable[..., str]) -> None:
    """What rows take of a GPU is 0.95 of it; their index is in host memory."""
    cuda = ("--world.device=cuda", "--storage.pad_bytes=1MiB", "--reclaim.by=kraken")
    held = json.loads(fourfold(*FORGETFUL, *cuda, "--json"))["tier_bytes"]

    assert all(0.91 < n / (1 << 20) < 0.96 for n in held["device"])  # one has the static table
    assert all(n > 0.9 * (1 << 20) * 27 / 72 for n in held["host"])


def test_rows_that_go_are_spread_if_a_rank_cannot_have_them(fourfold: Callable[..., str]) -> None:
    few = ("--reclaim.by=kraken", "--reclaim.rows=100", "--table.item.rows=50000")
    found = json.loads(fourfold(*FORGETFUL, *few, "--json"))

    assert found["tables"][0]["cut"] == "row 2"
    assert max(found["window_rows"]) <= 100
    with pytest.raises(ConfigError, match=r"reclaim.rows: rank \d must hold"):
        fourfold(*FORGETFUL, *few, "--placement.tables={ user = {} }")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--ranks", "2", *TIERS, "--storage.host_bytes=1MiB", "--storage.file_bytes=1 MiB"),
            r"do not fit: .* the budget of \[storage\] is .* embedding ranks would do",
        ),
        (("--ranks", "4", "--nodes", "3"), "expected as many ranks on every node"),
        (("--ranks", "0"), "expected as many ranks on every node"),
        (("--ranks", "2", "--storage.host_bytes=1MiB"), "embedding ranks would do"),
        (("--ranks", "2", "--placement.tables={ usr = {} }"), "no such table; nearest: user"),
        (
            ("--ranks", "2", "--placement.default={ row = 2 }"),
            r"nearest valid key: placement\.default\.rows",
        ),
        (
            (*FORGETFUL, *KRAKEN, "--placement.tables.user={ replicas = -1 }"),
            r"table 'user': .*reclaim.by = .kraken.* set placement\.tables\.user\.replicas = 1",
        ),
        (
            (*FORGETFUL, "--table.user.time_to_live=3"),
            "time_to_live = 3 has no use while reclaim.by",
        ),
        (
            (*FORGETFUL, "--reclaim.by=kraken"),
            "reclaim.by = .kraken. has no use without a budget: set reclaim.rows, reclaim.bytes or"
            " storage.host_bytes",
        ),
        (
            (*FORGETFUL, *KRAKEN, "--reclaim.rows=20"),
            r"reclaim.rows: rank \d must hold the rows of 3 batches .*at least \d\d, got 20;",
        ),
        (
            (*FORGETFUL, *KRAKEN, "--storage.host_bytes=20KiB"),
            r"storage.host_bytes: the rows of 3 batches .*at least that, got 20.0 KiB",
        ),
        (
            ("--ranks", "2", "--table.user.admission=bloom"),
            "table 'user': admission is for dynamic",
        ),
    ],
)
def test_mistakes_are_named(
    fourfold: Callable[..., str], arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises((ConfigError, PlacementError), match=message):
        fourfold(*arguments)


def test_no_mpi_and_exit_codes() -> None:
    """What does not fit is exit code 2 and one message. MPI is not even imported."""
    for budget, code, message in (("1MiB", 2, "embedding ranks would do"), ("1GiB", 0, "")):
        arguments = ("plan", "job.toml", "--ranks", "2", f"--storage.host_bytes={budget}")
        done = subprocess.run(
            [sys.executable, "-P", "-c", COMMAND, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == code
        assert message in done.stderr
        assert done.stderr.endswith("False\n")
