"""Who started this process, from real environments of each launcher."""

import pytest

from fourfold.launch.launcher import Launcher, check_world, detect_launcher
from fourfold.runtime.errors import ConfigError

OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
SLURM = {
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_NTASKS": "8",
    "SLURM_LOCALID": "1",
}


@pytest.mark.parametrize(
    ("environ", "launcher"),
    [
        ({}, None),
        (OPEN_MPI, Launcher("Open MPI", 3, 8, 1, 2)),
        ({"PMI_RANK": "3", "PMI_SIZE": "8"}, Launcher("MPICH", 3, 8)),
        (SLURM, Launcher("Slurm", 3, 8, 1)),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Launcher("torchrun", 3, 8, 1)),
        ({**SLURM, **OPEN_MPI, "RANK": "0", "WORLD_SIZE": "1"}, Launcher("Open MPI", 3, 8, 1, 2)),
        # A batch script before any srun, and variables that are not ranks at all.
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, None),
        ({"RANK": "colonel", "WORLD_SIZE": "8"}, None),
    ],
)
def test_detect(environ: dict[str, str], launcher: Launcher | None) -> None:
    assert detect_launcher(environ) == launcher


def test_shown_with_rank_and_size() -> None:
    assert str(detect_launcher(OPEN_MPI)) == "Open MPI(rank=3(8), local_rank=1)"


@pytest.mark.parametrize(
    ("environ", "advice"),
    [
        (OPEN_MPI, "Open MPI started 8 processes, but MPI (MPICH 4) sees only one: use the mpirun"),
        (SLURM, "srun --mpi=pmix"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "start it with mpirun"),
    ],
)
def test_an_mpirun_of_another_mpi_is_an_error(environ: dict[str, str], advice: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_world(detect_launcher(environ), 1, "MPICH 4", environ)

    assert advice in str(caught.value)


@pytest.mark.parametrize("variable", ["SLURM_NTASKS", "PBS_NP", "LSB_DJOB_NUMPROC"])
def test_a_forgotten_launcher_is_a_warning(variable: str) -> None:
    warning = check_world(None, 1, "MPICH 4", {variable: "8"})

    assert warning is not None
    assert "8 tasks" in warning


@pytest.mark.parametrize(
    ("launcher", "size", "environ"),
    [
        (Launcher("Open MPI", 0, 8), 8, {"SLURM_NTASKS": "8"}),
        (Launcher("Open MPI", 0, 1), 1, {"SLURM_NTASKS": "8"}),  # mpirun -n 1 is meant
        (None, 1, {}),
        (None, 1, {"SLURM_NTASKS": "1"}),
    ],
)
def test_nothing_to_say(launcher: Launcher | None, size: int, environ: dict[str, str]) -> None:
    assert check_world(launcher, size, "MPICH 4", environ) is None
