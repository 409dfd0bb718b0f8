"""A rank that fails in the way that its first argument says; the others wait for it forever."""

import ctypes
import os
import signal
import sys
import threading
import time

from mpi4py import MPI

from fourfold.launch.failure import run_guarded
from fourfold.runtime.errors import ConfigError, DataError
from fourfold.runtime.run import RunConfig, RunFolder
from fourfold.runtime.world import World

WAY = sys.argv[1]
COMM = MPI.COMM_WORLD
LAST = COMM.rank == COMM.size - 1


def job() -> int:
    match WAY:
        case "all":
            raise DataError("part.tsv: line 3: torn")
        case "each":
            raise DataError(f"part-{COMM.rank}.tsv: line 3: torn")
        case "config":
            raise ConfigError("job.toml: train.stepz: unknown key")
        case "logged":
            config = RunConfig(folder=sys.argv[2], name="run")
            RunFolder.create(config, World.from_mpi(COMM), COMM)
    if LAST:
        fail()
    COMM.Barrier()  # never completes
    return 0


def fail() -> None:
    match WAY:
        case "raise" | "logged":
            raise DataError("part.tsv: line 3: torn")
        case "bug":
            raise KeyError("weights")
        case "config on one":
            raise ConfigError("job.toml: train.stepz: unknown key")
        case "thread":
            threading.Thread(target=int, args=("x",)).start()
        case "exit 0" | "exit 3":
            sys.exit(int(WAY[-1]))
        case "interrupt":
            raise KeyboardInterrupt
        case "busy":  # the other ranks hold on to the lock of Python, in native code
            time.sleep(1)
            raise DataError("part.tsv: line 3: torn")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "term":
            os.kill(os.getpid(), signal.SIGTERM)
        case "crash":
            ctypes.string_at(0)


if WAY == "done":
    sys.exit(run_guarded(lambda: 0))
sys.exit(run_guarded(job))
