"""A rank's store: the pad that training works on, and the tiers below it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from fourfold.runtime.accelerator import Accelerator
from fourfold.runtime.run import LOGGER
from fourfold.runtime.tiers import Kind, shown_name
from fourfold.runtime.trace import Span, Trace
from fourfold.storage import Pad, ReclaimConfig, RowSpec, StorageConfig, StorageError

if TYPE_CHECKING:
    from mpi4py import MPI

    from fourfold.storage.tier import FileTier, HostTier

SECONDS = ("fetch_s", "write_s")
"""Of `Traffic`: what is not summed over ranks."""


class Store:
    """The rows that a rank holds. Close it, on errors too.

    pad: where training reads and writes. host, file: the tiers below it, if this rank has them.
    config: what the job says of them. device: kind of device that the rows of the run are on.
    """

    def __init__(
        self,
        pad: Pad,
        config: StorageConfig,
        host: HostTier | None = None,
        file: FileTier | None = None,
        device: Kind = "cpu",
    ) -> None:
        self.pad = pad
        self.host = host
        self.file = file
        self.fixed_lookahead = config.fixed_lookahead
        self.foresight = config.foresight if len(config.tiers) > 1 else 0
        self.tiers = config.tiers
        """Tiers of the run, whether or not this rank holds rows."""
        self._device = device
        self._trace: Trace | None = None

    @property
    def tiered(self) -> bool:
        """Whether there is more than one tier."""
        return len(self.tiers) > 1

    @property
    def bytes(self) -> dict[str, int]:
        """Bytes that count against the budgets, by tier as people name it.

        "host" is there for a GPU without a host tier, too: what is kept beside the rows.
        """
        parts = (self.pad, self.host, self.file)
        taken = {
            shown_name(tier, self.tiers, self._device): part.bytes if part else 0
            for tier, part in zip(self.tiers, parts, strict=False)
        }
        return taken if "host" in taken else taken | {"host": self.pad.beside_bytes}

    def trace(self, trace: Trace | None) -> None:
        """Record what the pad's threads do; None ends it."""
        self._trace = trace
        self.pad.trace(trace is not None)

    def collect_spans(self) -> None:
        """Bring what the pad's threads did by now into the trace, if there is one."""
        if self._trace is None:
            return
        for span in self.pad.take_spans():
            self._trace.add(
                Span(span.thread, span.name, span.begin_ns, span.end_ns, rows=span.rows)
            )

    def take_traffic(self) -> tuple[dict[str, float], dict[str, float]]:
        """Give rows and bytes moved since the last call, and the seconds that it took, by name.

        Empty in a run with one tier; zeros on a rank that holds no rows.
        """
        if not self.tiered:
            return {}, {}
        traffic = asdict(self.pad.take_traffic())
        seconds = {name: traffic.pop(name) for name in SECONDS}
        return traffic, seconds

    def close(self) -> None:
        """End the pad's threads and close the tiers below it. Local; a second call does nothing."""
        self.pad.close()
        self.collect_spans()
        if self.file is not None:
            self.file.close()

    def discard(self) -> None:
        """Close, and remove the file, of which nobody has heard yet."""
        path = None if self.file is None else self.file.path
        self.close()
        if path is not None:
            path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except StorageError as closing:
            if error is None:
                raise
            # What went wrong first is what must be told.
            logging.getLogger(LOGGER).error("after an error: %s", closing)


def open_store(
    specs: Sequence[RowSpec],
    config: StorageConfig,
    *,
    threads: int = 1,
    comm: MPI.Intracomm,
    folder: Path | None = None,
    run: str = "",
    reclaim: ReclaimConfig | None = None,
    device: Kind = "cpu",
    gpu: Accelerator | None = None,
) -> Store:
    """Make the pad of this rank and the tiers below it, as the job says. Collective over `comm`.

    specs: the tiles that this rank holds; without any it has no tiers. folder: where the files of
    the ranks go if the job names none. run: name of the run, which a file remembers. reclaim: which
    rows go when memory is short. device: kind of device that the rows of the run are on. gpu: this
    rank's, whose memory the pad is then. Raises, on all ranks, what any of them could not make:
    StorageError for a file that another run has open, BudgetError for budgets that hold nothing.
    """
    store: Store | Exception
    try:
        store = _open(specs, config, threads, comm.rank, folder, run, reclaim, device, gpu)
    except Exception as error:  # raised below, on all ranks
        store = error
    failures = comm.allgather(store if isinstance(store, Exception) else None)
    failure = next((error for error in failures if error is not None), None)
    if isinstance(store, Store):
        if failure is None:
            return store
        store.discard()
    assert failure is not None
    raise failure


def _open(
    specs: Sequence[RowSpec],
    config: StorageConfig,
    threads: int,
    rank: int,
    folder: Path | None,
    run: str,
    reclaim: ReclaimConfig | None,
    device: Kind,
    gpu: Accelerator | None,
) -> Store:
    host, file = None, None
    if specs and len(config.tiers) > 1:
        from fourfold.storage.tier import HostTier  # brings h5py, which one tier does without

        host = HostTier(specs, budget_bytes=config.host_budget, huge_pages=config.huge_pages)
        if config.file_bytes is not None:
            path = Path(config.folder or folder or "rows") / f"rank-{rank:04d}.h5"
            file = _open_file(specs, config, path, rank, run)
    try:
        pad = Pad(
            specs,
            budget_bytes=config.pad_budget,
            threads=threads,
            huge_pages=config.huge_pages,
            host=host,
            file=file,
            reclaim=reclaim,
            device=None if gpu is None else gpu.storage,
            stream=0 if gpu is None else gpu.stream,
        )
    except BaseException:
        if file is not None and file.path is not None:
            file.path.unlink(missing_ok=True)
            file.close()
        raise
    return Store(pad, config, host, file, device)


def _open_file(
    specs: Sequence[RowSpec], config: StorageConfig, path: Path, rank: int, run: str
) -> FileTier:
    from fourfold.storage.tier import FileTier

    return FileTier(
        specs,
        _make_folder(path.parent) / path.name,
        run=run,
        rank=rank,
        budget_bytes=config.file_budget,
        engine=config.io,
        direct=config.direct,
        depth=config.io_depth,
    )


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            error.errno, f"storage.folder: {folder} cannot be made: {error.strerror}"
        ) from error
    return folder
