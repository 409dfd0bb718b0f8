"""Real ranks for the tests: this Python under a real mpirun."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass

from fourfold.launch.mpirun import mpirun_command


@dataclass(frozen=True)
class Ended:
    """What a program left when it ended."""

    code: int
    output: str
    """Stdout and stderr, in the order in which they came."""
    seconds: float

    @property
    def last_line(self) -> str:
        return self.output.rstrip().rpartition("\n")[2]


def run_ranks(num_ranks: int, *words: str, timeout: float = 60) -> Ended:
    """Run Python with `words` on ranks of its own."""
    command, variables = mpirun_command(num_ranks, [sys.executable, "-P", *words], clean_environ())
    return run(command, variables, timeout)


def run_alone(*words: str, timeout: float = 60, **more: str) -> Ended:
    """Run Python with `words` without mpirun; more: environment variables."""
    return run([sys.executable, "-P", *words], {**clean_environ(), **more}, timeout)


def run(command: list[str], variables: dict[str, str], timeout: float) -> Ended:
    start = time.monotonic()
    done = subprocess.run(
        command,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    return Ended(done.returncode, done.stdout, time.monotonic() - start)


def clean_environ() -> dict[str, str]:
    """The environment without what a launcher left in it, for ranks that share the cores."""
    launchers = ("OMPI_", "PMIX_", "PRTE_", "PMI_", "SLURM_", "HYDI_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(launchers)}
    sharing = {"OMP_NUM_THREADS": "1", "OMPI_MCA_mpi_yield_when_idle": "1"}
    return {**kept, **sharing, "NO_COLOR": "1"}
