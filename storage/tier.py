"""The tiers below the pad: rows by id of the table, as records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fourfold.storage import _native
from fourfold.storage.container import Container
from fourfold.storage.kind import kinds_of
from fourfold.storage.row import RowSpec, key_ranges

MOST_BUFFER_BYTES = 4 << 20


class Tier:
    """Rows of a rank's tiles. Thread-safe unless a tier says otherwise.

    Rows are named by tile (in the order of `specs`) and id of the table; ids of other tiles are a
    ValueError. Records are as `RowSpec.record`. `native` is what the pad works with.
    """

    def __init__(self, specs: Sequence[RowSpec], native: _native.Tier) -> None:
        self.specs = tuple(specs)
        self.native = native
        self._base, self._bits = key_ranges(self.specs)

    def read(self, tile: int, ids: NDArray[np.int64]) -> tuple[NDArray[np.void], NDArray[np.bool_]]:
        """Read rows: records (n,), zeros for rows that are not here, and found (n,)."""
        record = self.specs[tile].record
        records = np.zeros(len(ids), dtype=record)
        found = np.zeros(len(ids), dtype=np.bool_)
        self.native.read(tile, self._keys(tile, ids), _bytes(records), found)
        return records, found

    def write(self, tile: int, ids: NDArray[np.int64], records: NDArray[np.void]) -> None:
        """Hold these records from now on; rows that are here are replaced. Ids are distinct."""
        keys = self._keys(tile, ids)
        packed = np.ascontiguousarray(records, dtype=self.specs[tile].record)
        if packed.shape != keys.shape:
            raise ValueError(f"Tier.write: {keys.shape} ids, but {packed.shape} records")
        self.native.write(tile, keys, _bytes(packed))

    def erase(self, tile: int, ids: NDArray[np.int64]) -> int:
        """Forget rows; returns how many there were."""
        return self.native.erase(tile, self._keys(tile, ids))

    def scan(
        self, tile: int, chunk_rows: int = 65536
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.void]]]:
        """Yield all rows of a tile as (ids, records), in chunks, in the order in which they lie."""
        keys = self.native.keys(tile)
        for start in range(0, len(keys), chunk_rows):
            ids = self._ids(tile, keys[start : start + chunk_rows])
            records, found = self.read(tile, ids)
            yield ids[found], records[found]

    @property
    def rows(self) -> int:
        """Rows held, over all tiles."""
        return sum(self.native.rows(tile) for tile in range(len(self.specs)))

    @property
    def bytes(self) -> int:
        """Bytes that count against the budget."""
        return self.native.bytes

    def _keys(self, tile: int, ids: NDArray[np.int64]) -> NDArray[np.uint64]:
        spec = self.specs[tile]
        ids = np.ascontiguousarray(ids, dtype=np.int64)
        top = 2**63 if spec.rows is None else spec.rows
        inside = (ids >= 0) & (ids < min(top, 2 ** int(self._bits[tile])))
        if inside.all():
            bucket = _native.bucket_of(ids, spec.table, spec.buckets, spec.dynamic)
            inside = bucket == spec.bucket
        if not inside.all():
            raise ValueError(
                f"table {spec.name!r}, bucket {spec.bucket} of {spec.buckets}: id"
                f" {ids[~inside][0]} does not belong to this tile"
            )
        at = ids if spec.dynamic else ids // spec.buckets
        keys: NDArray[np.uint64] = at.astype(np.uint64) | self._base[tile]
        return keys

    def _ids(self, tile: int, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        spec = self.specs[tile]
        at: NDArray[np.int64] = (keys ^ self._base[tile]).astype(np.int64)
        if spec.dynamic:
            return at
        return _native.id_of(at, spec.table, spec.bucket, spec.buckets)


class HostTier(Tier):
    """Records in host memory, and the write-back buffer of a file tier below. Not thread-safe.

    Args:
        specs: one per held tile.
        budget_bytes: most bytes of records and indexes; None: no limit.
        huge_pages: ask for 2 MiB pages.
    """

    native: _native.HostTier

    def __init__(
        self,
        specs: Sequence[RowSpec],
        *,
        budget_bytes: int | None = None,
        huge_pages: bool = True,
    ) -> None:
        tiles = [spec.native() for spec in specs]
        base, bits = key_ranges(specs)
        super().__init__(specs, _native.HostTier(tiles, base, bits, budget_bytes, huge_pages))


class FileTier(Tier):
    """Rows in one HDF5 file, with an index in memory.

    Args:
        specs: one per held tile.
        path: of the file, which must not exist yet. `open` takes one that does.
        run: name of the run, kept in the file.
        rank: whose rows they are, kept in the file.
        budget_bytes: most bytes of rows in the file; None: no limit.
        engine: "uring" (io_uring), "threads", or "auto": io_uring where the system allows it.
        direct: keep the file out of the system's page cache (O_DIRECT).
        depth: reads or writes under way at once.
        segment_bytes: the unit in which space is taken and reused; None: by the budget.
        buffer_bytes: memory of reads, and as much of writes; None: by the budget, 4 MiB at most.
    """

    native: _native.FileTier

    def __init__(
        self,
        specs: Sequence[RowSpec],
        path: str | Path,
        *,
        run: str,
        rank: int = 0,
        budget_bytes: int | None = None,
        engine: str = "auto",
        direct: bool = False,
        depth: int = 64,
        segment_bytes: int | None = None,
        buffer_bytes: int | None = None,
    ) -> None:
        kinds, _ = kinds_of(specs, segment_bytes, budget_bytes)
        container = Container.create(Path(path), specs, kinds, run=run, rank=rank, direct=direct)
        try:
            self._start(specs, container, budget_bytes, engine, depth, buffer_bytes)
        except BaseException:
            container.close(None)
            container.path.unlink(missing_ok=True)
            raise

    @classmethod
    def open(
        cls,
        specs: Sequence[RowSpec],
        path: str | Path,
        *,
        run: str,
        budget_bytes: int | None = None,
        engine: str = "auto",
        direct: bool = False,
        depth: int = 64,
        buffer_bytes: int | None = None,
    ) -> Self:
        """Open a file that was closed; every row is read and checked.

        StorageError for a file that is missing, locked, of another run or other tables, or was not
        closed; CorruptionError for one that has been altered.
        """
        kinds, _ = kinds_of(specs, None, budget_bytes)
        container = Container.open(Path(path), specs, kinds, run=run, direct=direct)
        try:
            tier = cls.__new__(cls)
            tier._start(specs, container, budget_bytes, engine, depth, buffer_bytes)
            for kind in range(len(container.kinds)):
                for offsets, live in container.segments(kind):
                    tier.native.restore(kind, offsets, live)
            container.begin()
        except BaseException:
            container.close(None)
            raise
        return tier

    def _start(
        self,
        specs: Sequence[RowSpec],
        container: Container,
        budget_bytes: int | None,
        engine: str,
        depth: int,
        buffer_bytes: int | None,
    ) -> None:
        disk = self._open_disk(container.file, engine, depth)
        native = _native_tier(specs, container, disk, budget_bytes, buffer_bytes)
        super().__init__(specs, native)
        self._container: Container | None = container

    def _open_disk(self, file: int, engine: str, depth: int) -> _native.Disk:
        return _native.Disk.open(file, engine, depth)

    @property
    def path(self) -> Path | None:
        """Of the file; None once closed."""
        return None if self._container is None else self._container.path

    @property
    def engine(self) -> str:
        """What reads and writes: uring or threads."""
        return self.native.engine

    @property
    def memory_bytes(self) -> int:
        """Host memory that index and buffers take."""
        return self.native.memory

    def close(self) -> None:
        """Make the file whole, for `open` and for any reader of HDF5; a second call does nothing.

        Nothing may be under way, and nobody may use the tier afterwards.
        """
        container, self._container = self._container, None
        if container is not None:
            self.native.discard_free()
            container.close([self.native.live(kind) for kind in range(len(container.kinds))])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _native_tier(
    specs: Sequence[RowSpec],
    container: Container,
    disk: _native.Disk,
    budget_bytes: int | None,
    buffer_bytes: int | None,
) -> _native.FileTier:
    if buffer_bytes is None:
        share = MOST_BUFFER_BYTES if budget_bytes is None else budget_bytes // 64
        buffer_bytes = min(share, MOST_BUFFER_BYTES)
    base, bits = key_ranges(specs)
    records = [kind.record for kind in container.kinds]
    kinds = []
    for kind in container.kinds:
        size = kind.record.itemsize
        segment_bytes = kind.segment_pages * _native.page_layout(size)[0]
        kinds.append(_native.KindFacts(f"/rows/{kind.name}", size, segment_bytes))
    tiles = []
    for tile, spec in enumerate(specs):
        positions = None
        if spec.rows is not None:
            positions = _native.bucket_rows(spec.rows, spec.table, spec.bucket, spec.buckets)
        label = f"table {spec.name!r} (bucket {spec.bucket} of {spec.buckets})"
        keys = int(base[tile]), int(bits[tile])
        tiles.append(_native.TileFacts(label, *keys, positions, records.index(spec.record)))
    return _native.FileTier(
        kinds=kinds,
        tiles=tiles,
        path=str(container.path),
        budget=budget_bytes,
        buffer_bytes=buffer_bytes,
        disk=disk,
        extend=container.extend,
    )


def _bytes(records: NDArray[np.void]) -> NDArray[np.uint8]:
    return records.view(np.uint8).reshape(len(records), records.itemsize)
