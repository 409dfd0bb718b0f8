"""One rank fails: its name and message are the last thing printed, and every rank ends.

A rank that raises while the others wait for it in a collective would hang them all, so that every
exception that reaches the command line (or the top of a thread) ends the world:

1. The failing rank waits a moment for the others. If all ranks fail together, as they do for a
   mistake in the job, rank 0 speaks for all. Otherwise each failing rank speaks for itself.
2. The message goes to stderr, the traceback to the rank's log; an exception that is not ours shows
   its traceback on stderr too, above the message.
3. The world ends: all return where all failed over the job (exit code 2), otherwise the launcher is
   asked to stop, and MPI_Abort is the sure way.

What dies without raising (SIGKILL, a crash in native code) is noticed and named by the launcher.
"""

from __future__ import annotations

import faulthandler
import fcntl
import logging
import os
import signal
import socket
import sys
import termios
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from fourfold.launch.launcher import detect_launcher
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.roles import show_ranks
from fourfold.runtime.run import LOGGER

if TYPE_CHECKING:
    from mpi4py import MPI

TOGETHER_SECONDS = {1: 1.0, 2: 10.0, 130: 1.0}
"""How long failing ranks wait for each other, by exit code. A mistake in the job is found by all,
but one may still be importing what another has imported already."""
STOP_SECONDS = 5.0
"""How long the launcher may take to stop us before MPI_Abort."""
LAST_SECONDS = 20.0
"""After this a rank that still lives exits by itself, whatever it hangs in."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What one rank has to say."""

    code: int
    message: str
    details: str
    """Where the traceback was written."""
    trace: str
    """The traceback itself, where a person must see it."""


def run_guarded(command: Callable[[], int]) -> int:
    """Run a command on this rank and return its exit code; a failure ends every rank."""
    faulthandler.enable()
    threading.excepthook = _fail_thread
    try:
        return command()
    except BaseException as error:
        return _fail(error)


def exit_code(error: BaseException) -> int:
    """Return 2 for what the user can mend in the job, 130 for Ctrl-C, 1 for all else."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    placement = getattr(sys.modules.get("fourfold.comm.errors"), "PlacementError", ConfigError)
    return 2 if isinstance(error, ConfigError | placement) else 1


def describe_error(error: BaseException) -> str:
    """Return the message that a person sees."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, ConfigError):
        return str(error)
    name = type(error).__name__
    return f"{name}: {error}" if str(error) else name


def _fail(error: BaseException) -> int:
    """Report the failure of this rank, end the world, and return the exit code."""
    faulthandler.dump_traceback_later(LAST_SECONDS, exit=True)
    mine = Failure(exit_code(error), describe_error(error), _log(error), _traceback(error))
    comm = _world()
    if comm is None or comm.size == 1:
        launcher = detect_launcher(os.environ)
        if launcher is not None and launcher.rank > 0:
            time.sleep(TOGETHER_SECONDS[2])  # rank 0 most likely says the same, which ends us
        _speak(mine.trace, f"fourfold: error: {mine.message}{mine.details}")
        faulthandler.cancel_dump_traceback_later()
        return mine.code
    if not _all_fail(comm, TOGETHER_SECONDS[mine.code]):
        name = f"[rank {comm.rank}/{comm.size} {socket.gethostname()}]"
        _speak(mine.trace, f"{name} {mine.message}{mine.details}")
        _end_world(comm, mine.code)
    failures = comm.allgather(mine)
    if comm.rank == 0:
        _speak_for_all(failures)
    if all(failure.code == 2 for failure in failures):
        _finalize_together(comm.rank)
        return 2
    if comm.rank == 0:
        _end_world(comm, mine.code)
    time.sleep(2 * LAST_SECONDS)
    return mine.code


def _fail_thread(failure: threading.ExceptHookArgs) -> None:
    """End the world over an exception that nobody in a background thread catches."""
    if failure.exc_value is not None:
        code = _fail(failure.exc_value)
        os._exit(code)


def _world() -> MPI.Intracomm | None:
    """Return the world's communicator while MPI runs; never starts MPI."""
    if "mpi4py.MPI" not in sys.modules:
        return None
    from mpi4py import MPI

    return MPI.COMM_WORLD if MPI.Is_initialized() and not MPI.Is_finalized() else None


def _all_fail(comm: MPI.Intracomm, seconds: float) -> bool:
    """Say whether every rank comes here within `seconds`."""
    barrier = comm.Ibarrier()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if barrier.Test():
            return True
        time.sleep(0.01)
    return False


def _speak_for_all(failures: list[Failure]) -> None:
    """Print, on rank 0, what all ranks say; ranks that say the same share a line."""
    speakers: dict[str, list[int]] = {}
    for rank, failure in enumerate(failures):
        speakers.setdefault(failure.message, []).append(rank)
    lines = [next((failure.trace for failure in failures if failure.trace), "")]
    for message, ranks in speakers.items():
        if len(speakers) == 1 and failures[0].code == 2:
            lines.append(f"fourfold: error: {message}")
        else:
            names = f"rank{'s' * (len(ranks) > 1)} {show_ranks(ranks)}/{len(failures)}"
            details = failures[ranks[0]].details
            lines.append(f"[{names} {socket.gethostname()}] {message}{details}")
    _speak(*lines)


def _speak(*lines: str) -> None:
    """Write to stderr and wait until the launcher has read it, for it stops reading soon."""
    sys.stdout.flush()
    sys.stderr.write("".join(f"{line}\n" for line in lines if line))
    sys.stderr.flush()
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline and _unread_bytes():
        time.sleep(0.001)


def _unread_bytes() -> int:
    try:
        answer = fcntl.ioctl(sys.stderr.fileno(), termios.FIONREAD, b"\0" * 4)
    except OSError:  # not a pipe: a file or a terminal has it already
        return 0
    return int.from_bytes(answer, sys.byteorder)


def _traceback(error: BaseException) -> str:
    """Return the traceback of what is not ours: our own messages stand alone."""
    ours = type(error).__module__.partition(".")[0] == "fourfold"
    if ours or isinstance(error, KeyboardInterrupt | SystemExit):
        return ""
    trace = error.__traceback__
    while trace and Path(trace.tb_frame.f_code.co_filename).parent == Path(__file__).parent:
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace)[:-1]).rstrip()


def _log(error: BaseException) -> str:
    """Write the traceback to the rank's log, if a run has one by now, and say where that is."""
    log = logging.getLogger(LOGGER)
    files = [h.baseFilename for h in log.handlers if isinstance(h, logging.FileHandler)]
    if not files:
        return ""
    log.error("failed", exc_info=error, extra={"file_only": True})
    return f" (traceback in {os.path.relpath(files[0])})"


def _finalize_together(rank: int) -> None:
    """Leave MPI; rank 0 exits first, since Open MPI stumbles over several exit codes at once."""
    from mpi4py import MPI

    MPI.Finalize()
    faulthandler.cancel_dump_traceback_later()
    if rank > 0:
        time.sleep(0.3)


def _end_world(comm: MPI.Intracomm, code: int) -> NoReturn:
    """End every rank of the world.

    MPI_Abort makes Open MPI print a dozen lines of its own after our message. Asked to stop by a
    signal, as Ctrl-C does, its mpirun ends all ranks silently; it can be asked where it is our
    parent, on its own node. Its exit code is 1 then.
    """
    parent = os.getppid()
    try:
        name = Path(f"/proc/{parent}/comm").read_text().strip()
    except OSError:
        name = ""
    if name in ("mpirun", "mpiexec", "orterun", "prterun"):
        os.kill(parent, signal.SIGTERM)
        time.sleep(STOP_SECONDS)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # MPICH speaks here, after us
    comm.Abort(code)
    os._exit(code)
