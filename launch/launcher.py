"""Who started this process: looked up in the environment, before MPI says anything.

A launcher is a dictionary of variable names, first match wins. Ranks and sizes that count come from
MPI (`fourfold.runtime.world`); these serve messages, the time before MPI starts, and the two most
frequent mistakes: a forgotten mpirun, and an mpirun that belongs to another MPI than the library.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fourfold.runtime.errors import ConfigError

LAUNCHERS = {
    "Open MPI": {
        "rank": "OMPI_COMM_WORLD_RANK",
        "size": "OMPI_COMM_WORLD_SIZE",
        "local_rank": "OMPI_COMM_WORLD_LOCAL_RANK",
        "local_size": "OMPI_COMM_WORLD_LOCAL_SIZE",
    },
    "MPICH": {
        "rank": "PMI_RANK",
        "size": "PMI_SIZE",
        "local_rank": "MPI_LOCALRANKID",
        "local_size": "MPI_LOCALNRANKS",
    },
    "Slurm": {
        "rank": "SLURM_PROCID",
        "size": "SLURM_STEP_NUM_TASKS",
        "local_rank": "SLURM_LOCALID",
        "local_size": "",  # Slurm has no variable for it
    },
    "torchrun": {
        "rank": "RANK",
        "size": "WORLD_SIZE",
        "local_rank": "LOCAL_RANK",
        "local_size": "LOCAL_WORLD_SIZE",
    },
}

ALLOCATIONS = {
    "Slurm": ("SLURM_NTASKS", "srun --mpi=pmix"),
    "PBS": ("PBS_NP", "mpirun"),
    "LSF": ("LSB_DJOB_NUMPROC", "mpirun"),
}
"""Number of tasks of an allocation, and what starts them."""


@dataclass(frozen=True, slots=True)
class Launcher:
    """What the environment says of this process; None where it says nothing."""

    name: str
    rank: int
    size: int
    local_rank: int | None = None
    local_size: int | None = None

    def __str__(self) -> str:
        local = "" if self.local_rank is None else f", local_rank={self.local_rank}"
        return f"{self.name}(rank={self.rank}({self.size}){local})"


def detect_launcher(environ: Mapping[str, str]) -> Launcher | None:
    """Return the launcher that started this process, None if it was started by hand."""
    for name, variables in LAUNCHERS.items():
        found = {
            field: int(environ[variable])
            for field, variable in variables.items()
            if environ.get(variable, "").isdecimal()
        }
        if "rank" in found and "size" in found:
            return Launcher(name=name, **found)
    return None


def check_world(
    launcher: Launcher | None, world_size: int, library: str, environ: Mapping[str, str]
) -> str | None:
    """Compare what the launcher started with the world that MPI found.

    library: name of the MPI library. Returns a warning if the launcher seems forgotten. Raises
    ConfigError if a launcher started several processes that MPI does not know of: each would
    train alone and write over the others.
    """
    if world_size > 1:
        return None
    if launcher is not None and launcher.size > 1:
        advice = {
            "torchrun": "Fourfold's ranks come from MPI; start it with mpirun",
            "Slurm": "start it with `srun --mpi=pmix`, or with mpirun inside the allocation",
        }.get(launcher.name, "use the mpirun that belongs to this library")
        raise ConfigError(
            f"{launcher.name} started {launcher.size} processes, but MPI ({library}) sees only one:"
            f" {advice}"
        )
    for name, (variable, command) in ALLOCATIONS.items():
        tasks = environ.get(variable, "")
        if launcher is None and tasks.isdecimal() and int(tasks) > 1:
            return (
                f"this {name} allocation has {tasks} tasks, but only one rank was started;"
                f" to use them all: {command} -n {tasks} fourfold ..."
            )
    return None
