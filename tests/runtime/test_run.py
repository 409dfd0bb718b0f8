"""The run folder: what a run leaves, and that it never writes over another."""

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest

from fourfold.runtime.console import Console, may_color
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.roles import RolesConfig, assign_roles
from fourfold.runtime.run import RunConfig, RunFolder
from fourfold.runtime.world import World


def config(tmp_path: Path, **more: object) -> RunConfig:
    return RunConfig(folder=str(tmp_path / "runs"), **more)


def test_what_a_run_leaves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World.imagine(1)
    with RunFolder.create(config(tmp_path, name="first"), world) as run:
        run.write_config("[run]\n")
        run.write_environment(assign_roles(1, RolesConfig()), launcher=None)
        run.metrics.write(step=1, loss=np.float32(0.5), samples_per_s=1000, note="x")
        run.metrics.write(step=2, loss=math.nan, step_s=math.inf)
        run.console.title("Fourfold")
        run.console.row(step=1, loss=0.5, step_s=0.031, samples_per_s=131072.0)
        run.log.warning("look out")

    folder = tmp_path / "runs" / "first"
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert names == ["config.toml", "env.json", "log/rank-0000.log", "metrics.jsonl"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["loss"] == 0.5
    assert lines[0]["time"].endswith("Z")
    assert (lines[1]["loss"], lines[1]["step_s"]) == ("nan", "inf")
    environment = json.loads((folder / "env.json").read_text())
    assert environment["world"]["size"] == 1
    assert environment["roles"] == {"dense": [0], "embedding": [0]}
    assert environment["packages"]["numpy"] == np.__version__
    shown = capsys.readouterr().out
    assert "Fourfold\n" in shown
    assert "step      1  loss 0.5000  step 31.0 ms  131,072 samples/s\n" in shown
    assert "warning: look out\n" in shown
    log = (folder / "log" / "rank-0000.log").read_text()
    assert "INFO step      1" in log
    assert "WARNING look out" in log
    assert not logging.getLogger("fourfold").handlers


def test_columns_keep_their_width(caplog: pytest.LogCaptureFixture) -> None:
    console = Console(logging.getLogger("columns"))
    with caplog.at_level(logging.INFO):
        console.row(step=1, loss=0.25, sent_bytes=2**20)
        console.row(step=1_000_000, loss=12345.0, sent_bytes=2**10)
        console.row(step=2, loss=0.5, sent_bytes=100)

    assert [record.message for record in caplog.records] == [
        "step      1  loss 0.2500  sent 1.00 MiB",
        "step 1,000,000  loss 12345.0000  sent 1.00 KiB",
        "step         2  loss     0.5000  sent    100 B",
    ]


def test_other_ranks_show_warnings_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunFolder(tmp_path, World.imagine(4, rank=3)) as run:
        run.log.info("calm")
        run.log.warning("look out")
        run.metrics.write(step=1, loss=0.5)

    assert capsys.readouterr().out == "[rank 3/4] warning: look out\n"
    assert "INFO calm" in (tmp_path / "log" / "rank-0003.log").read_text()
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_taken_name_is_an_error(tmp_path: Path) -> None:
    RunFolder.create(config(tmp_path, name="first"), World.imagine(1)).close()

    with pytest.raises(ConfigError, match=r"runs/first exists and is never written over"):
        RunFolder.create(config(tmp_path, name="first"), World.imagine(1))


def test_runs_of_one_second_get_names_of_their_own(tmp_path: Path) -> None:
    paths = set()
    for _ in range(3):
        run = RunFolder.create(config(tmp_path, job="clicks"), World.imagine(1))
        run.close()
        paths.add(run.path)

    assert len(paths) == 3
    assert all(path.name.startswith("clicks-20") for path in paths)


def test_no_folder_to_be_had(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")

    with pytest.raises(ConfigError, match=r"run\.folder: .* cannot be made"):
        RunFolder.create(config(tmp_path), World.imagine(1))


@pytest.mark.parametrize("arguments", [{"seed": -1}, {"name": "a/b"}, {"name": ".."}, {"job": "/"}])
def test_impossible_config(arguments: dict) -> None:
    with pytest.raises(ConfigError, match=r"seed|name|job"):
        RunConfig(**arguments)


def test_colours_only_where_they_are_wanted() -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    assert may_color(Terminal(), {})
    assert not may_color(Terminal(), {"NO_COLOR": "1"})
    assert not may_color(Terminal(), {}, world_size=2)  # mpirun gives every rank a terminal
    assert may_color(Terminal(), {"FORCE_COLOR": "1"}, world_size=2)


@pytest.mark.mpi(min_size=2)
def test_ranks_share_one_folder(comm, mpi_tmp_path: Path) -> None:
    world = World.from_mpi(comm)
    run = RunFolder.create(config(mpi_tmp_path), world, comm)
    run.log.info("here")
    run.close()

    assert len(set(comm.allgather(run.path))) == 1
    assert run.log_path == run.path / "log" / f"rank-{comm.rank:04d}.log"
    assert "INFO here" in run.log_path.read_text()


@pytest.mark.mpi(min_size=2)
def test_a_taken_name_is_an_error_on_all_ranks(comm, mpi_tmp_path: Path) -> None:
    world = World.from_mpi(comm)
    RunFolder.create(config(mpi_tmp_path, name="first"), world, comm).close()

    with pytest.raises(ConfigError, match="never written over"):
        RunFolder.create(config(mpi_tmp_path, name="first"), world, comm)
