"""Which mpirun starts the ranks, and with what."""

import os
import stat
from pathlib import Path

import pytest

from fourfold.launch.mpirun import find_mpirun, mpirun_command
from fourfold.runtime.errors import ConfigError


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_an_mpirun_of_the_environment_goes_before_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, site = tmp_path / "own", tmp_path / "site"
    (own / "bin").mkdir(parents=True)
    site.mkdir()
    monkeypatch.setattr("sys.prefix", str(own))
    of_site = script(site / "mpirun", "")

    assert find_mpirun({"PATH": str(site)}) == [of_site]

    of_own = script(own / "bin" / "mpirun", "")

    assert find_mpirun({"PATH": str(site)}) == [of_own]
    assert find_mpirun({"PATH": str(site), "MPIRUN": "srun --mpi=pmix"}) == ["srun", "--mpi=pmix"]


def test_no_mpirun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.prefix", str(tmp_path))

    with pytest.raises(ConfigError, match="no mpirun found"):
        find_mpirun({"PATH": str(tmp_path)})


def test_mpirun_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="/nowhere/mpirun cannot be run"):
        mpirun_command(2, ["true"], {"MPIRUN": "/nowhere/mpirun"})


@pytest.mark.parametrize(
    ("version", "options"),
    [
        ("mpirun (Open MPI) 4.1.4", ["--oversubscribe", "--bind-to", "none"]),
        ("mpirun (Open MPI) 5.0.11", ["--oversubscribe", "--bind-to", "none"]),
        ("HYDRA build details:", []),
    ],
)
def test_options_by_kind(tmp_path: Path, version: str, options: list[str]) -> None:
    mpirun = script(tmp_path / "mpirun", f'echo "{version}"')

    command, variables = mpirun_command(2, ["python", "job.py"], {"MPIRUN": mpirun})

    assert command == [mpirun, *options, "-n", "2", "python", "job.py"]
    as_root = bool(options) and os.geteuid() == 0
    assert ("OMPI_ALLOW_RUN_AS_ROOT" in variables) == as_root
