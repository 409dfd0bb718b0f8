"""How the tests run on one rank and on many.

    pytest -m "not mpi"                             what needs one process
    mpirun -n 2 pytest -m mpi --with-mpi            what needs ranks; all ranks run the same tests

On many ranks rank 0 alone reports. A test fails on every rank if it fails on one, which says why at
once: the other ranks may wait in a collective that never ends. Then the whole session is ended.
"""

from __future__ import annotations

import fcntl
import getpass
import io
import itertools
import math
import os
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hypothesis
import pytest

if TYPE_CHECKING:
    from mpi4py import MPI

PATIENCE_SECONDS = 20.0
"""How long a rank whose test failed waits for ranks that are still in it."""

hypothesis.settings.register_profile("desk", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
# All ranks must draw the same examples, and a rank that fails must not shrink while others wait.
hypothesis.settings.register_profile(
    "ranks",
    deadline=None,
    derandomize=True,
    database=None,
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
)


def _folder_of_its_own() -> str:
    """The first folder for temporary files that no other test process uses now.

    At its end a process clears what earlier ones left in its folder. Several that shared a folder,
    such as ranks, would clear the same files at once, which fails.
    """
    for number in itertools.count():
        folder = Path(tempfile.gettempdir(), f"fourfold-tests-{getpass.getuser()}", str(number))
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)  # open until the process has ended
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            return str(folder)
    raise AssertionError("there is always a next number")


@pytest.hookimpl(trylast=True)  # after the reporter is there
def pytest_configure(config: pytest.Config) -> None:
    with_mpi = config.getoption("--with-mpi") or config.getoption("--only-mpi")
    profile = "ranks" if with_mpi else "ci" if os.environ.get("CI") else "desk"
    hypothesis.settings.load_profile(profile)
    os.environ["PYTEST_DEBUG_TEMPROOT"] = _folder_of_its_own()
    if not with_mpi:
        return
    from mpi4py import MPI

    if MPI.COMM_WORLD.size > 1:
        config.pluginmanager.register(Ranks(MPI.COMM_WORLD.Dup()), "ranks")
        if MPI.COMM_WORLD.rank > 0:
            reporter = config.pluginmanager.get_plugin("terminalreporter")
            reporter._tw._file = io.StringIO()  # the reporter has no setting for it


@pytest.hookimpl(tryfirst=True)  # before -m leaves some out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` looks for tests on ranks only in files that name their mark."""
    for path in sorted({item.path for item in items if item.get_closest_marker("mpi")}):
        if "mark.mpi" not in path.read_text():
            raise pytest.UsageError(f"{path} has tests on ranks, but not the words mark.mpi")


class Ranks:
    """Keeps the ranks of one test session in step. Every hook here is collective."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        self._comm = comm

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        mine = ([item.nodeid for item in session.items], session.testsfailed)
        if self._comm.allgather(mine) != [mine] * self._comm.size:
            self._end("the ranks have collected different tests")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        reason = report.longreprtext if report.failed else ""
        if reason:
            self._say(f"{item.nodeid} ({report.when})\n{reason}")
        if not self._meet(PATIENCE_SECONDS if reason else math.inf):
            self._end(f"{item.nodeid} failed here and hangs on another rank")
        reasons = self._comm.allgather(reason)
        if any(reasons) and not reason:
            failed = [rank for rank, text in enumerate(reasons) if text]
            report.outcome = "failed"
            report.longrepr = f"failed on rank {failed[0]}:\n{reasons[failed[0]]}"
        return report

    def pytest_internalerror(self, excrepr: object) -> None:
        self._end(str(excrepr))

    def pytest_keyboard_interrupt(self) -> None:
        self._end("interrupted")

    def _meet(self, seconds: float) -> bool:
        """Wait for all ranks, without keeping a core busy; say whether they came in time."""
        barrier = self._comm.Ibarrier()
        deadline = time.monotonic() + seconds
        while not barrier.Test():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True

    def _end(self, message: str) -> NoReturn:
        self._say(message)
        self._comm.Abort(1)
        raise SystemExit(1)

    def _say(self, message: str) -> None:
        print(f"\n[rank {self._comm.rank}] {message}", file=sys.stderr, flush=True)


@pytest.fixture(scope="session")
def comm() -> Any:
    """The communicator of all ranks of the session; one rank without mpirun."""
    from mpi4py import MPI

    return MPI.COMM_WORLD


@pytest.fixture(autouse=True)
def _kernels_do_nothing_wrong() -> Iterator[None]:
    """A kernel that did something wrong on the stand-in (tests/gpu) fails its test in any case."""
    yield
    if "gpu" in sys.modules and (fault := sys.modules["gpu"].take_fault()):
        pytest.fail(fault)
