"""The native core of the storage layer (storage/native). Arrays are C-contiguous."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

ARCH: str
"""The CPU that it was compiled for."""

class Index:
    """Exact map of uint64 keys to uint32 slots 0, 1, 2, ... in the order in which new keys come."""

    def __init__(self, expected: int = 0, huge_pages: bool = True) -> None: ...
    def find(
        self, keys: NDArray[np.uint64], threads: int = 1, out: NDArray[np.uint32] | None = None
    ) -> NDArray[np.uint32]: ...
    def insert(
        self, keys: NDArray[np.uint64], threads: int = 1
    ) -> tuple[NDArray[np.uint32], int]: ...
    def erase(self, keys: NDArray[np.uint64]) -> int: ...
    def items(self) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]: ...
    def clear(self) -> None: ...
    def probes(self) -> tuple[int, int]: ...
    def consistent(self) -> bool: ...
    def __len__(self) -> int: ...
    @property
    def bytes(self) -> int: ...

class LinearProbing:
    """The reference of the index benchmark."""

    def __init__(self, capacity: int) -> None: ...
    def insert(self, keys: NDArray[np.uint64], first_slot: int) -> None: ...
    def find(self, keys: NDArray[np.uint64], threads: int, out: NDArray[np.uint32]) -> None: ...
    @property
    def bytes(self) -> int: ...

class OptimizerSpec:
    """Kind and constants of an optimizer (native/tile.h)."""

    def __init__(
        self,
        kind: int,
        *,
        eps: float = 0.0,
        beta1: float = 0.0,
        beta2: float = 0.0,
        beta: float = 0.0,
        l1: float = 0.0,
        l2: float = 0.0,
        initial: float = 0.0,
    ) -> None: ...

class TileSpec:
    """What fixes the rows of a held tile (native/tile.h)."""

    def __init__(
        self,
        *,
        name: str,
        table: int,
        dim: int,
        column: int,
        rows: int,
        bucket: int,
        buckets: int,
        dtype: int,
        optimizer: OptimizerSpec,
        init: int,
        scale: float,
        seed: int,
        admission: int,
        admit_probability: float,
        admit_count: int,
        time_to_live: int,
        high_priority: bool,
        absent_zeros: bool,
    ) -> None: ...
    def row_bytes(self) -> int: ...

class Ticket:
    """The plan of one batch on this rank."""

    @property
    def train(self) -> bool:
        """Whether rows may be updated with it."""
    @property
    def released(self) -> bool:
        """Whether its use has ended."""
    @property
    def rows(self) -> int:
        """Ids asked for, over all segments."""
    @property
    def unique(self) -> int:
        """Distinct rows that get a gradient (training)."""
    @property
    def new(self) -> int:
        """Rows that were born with this plan."""
    @property
    def missing(self) -> int:
        """Ids without a row (reading): answered as newborn rows."""

class Policy:
    """What rows may take, and how those that go are chosen (native/population.h)."""

    def __init__(
        self,
        *,
        ranking: int,
        gradients: bool,
        decay: float,
        interval: int,
        max_rows: int,
        max_bytes: int,
        share: float,
        free: float,
        admission_bytes: int,
    ) -> None: ...

class Request:
    """The arrays of a request, checked against each other."""

    def __init__(
        self,
        tile: NDArray[np.int32],
        ids: NDArray[np.int64],
        first: NDArray[np.int64],
        bags: NDArray[np.int64],
        lengths: NDArray[np.int32],
        pooled: NDArray[np.bool_],
        weights: NDArray[np.float32] | None,
        replies: NDArray[np.bool_],
        credits: NDArray[np.float32] | None,
    ) -> None: ...

class Pad:
    """The rows of a rank; fourfold.storage.pad.Pad is its public face."""

    def __init__(
        self,
        tiles: Sequence[TileSpec],
        key_base: NDArray[np.uint64],
        key_bits: NDArray[np.uint32],
        budget: int | None,
        threads: int,
        huge_pages: bool,
        policy: Policy,
        host: HostTier | None,
        file: FileTier | None,
        device: Device | None,
    ) -> None: ...
    def plan(self, request: Request, train: bool) -> Ticket: ...
    def try_plan(self, request: Request, train: bool) -> Ticket | None: ...
    def foresee(self, request: Request) -> None: ...
    def forget_foreseen(self) -> None: ...
    def wait_for_room(self, seconds: float) -> None: ...
    def wait(self, ticket: Ticket) -> None: ...
    def close(self) -> None: ...
    def traffic(self) -> list[float]: ...
    def trace(self, on: bool) -> None: ...
    def spans(self) -> list[tuple[str, str, int, int, int]]: ...
    def gather(
        self, ticket: Ticket, addresses: NDArray[np.uint64], wire: int, stream: int = 0
    ) -> None: ...
    def update(
        self,
        ticket: Ticket,
        addresses: NDArray[np.uint64],
        wire: int,
        lr: float,
        step: int,
        stream: int = 0,
    ) -> None: ...
    def release(self, ticket: Ticket) -> None: ...
    def read(
        self, tile: int, ids: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]: ...
    def write(self, tile: int, ids: NDArray[np.int64], records: NDArray[np.uint8]) -> None: ...
    def erase(self, tile: int, ids: NDArray[np.int64]) -> int: ...
    def ids(self, tile: int) -> NDArray[np.int64]: ...
    def tile_rows(self, tile: int) -> int: ...
    def set_window(self, batches: int) -> None: ...
    def tile_counts(self, tile: int) -> tuple[int, int, int, int]: ...
    def tile_bytes(self, tile: int) -> int: ...
    def record_bytes(self, tile: int) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def beside_bytes(self) -> int: ...
    @property
    def huge_pages(self) -> bool: ...

def in_place(pad: Pad) -> tuple[int, str, int, bool, int | None, int | None]:
    """The fields of InPlace."""

def set_in_place(pad: Pad, loads_from: int | None, stores_from: int | None) -> None:
    """Take these sizes instead of what would be measured."""

def measure_crossover(
    device: Device, threads: int, rows: int = 4096
) -> tuple[int | None, int | None]:
    """The sizes for loads and stores, measured with so many rows at once."""

class Decay:
    """What intervals without credit leave of a score (native/score.h)."""

    def __init__(self, beta: float) -> None: ...
    def apply(
        self, values: NDArray[np.uint64], intervals: NDArray[np.uint32]
    ) -> NDArray[np.uint64]: ...

class Clock:
    """Training batches, and ticks with 16-bit names (native/clock.h)."""

    def __init__(self, interval: int) -> None: ...
    def advance_batch(self) -> None: ...
    def tick(self) -> None: ...
    def batch_of(self, tick: int) -> int: ...
    def age(self, tick: int) -> int: ...
    def intervals(self, first: int, last: int) -> int: ...
    @property
    def now(self) -> int: ...
    @property
    def ticks(self) -> int: ...
    @property
    def batch(self) -> int: ...

class RowClass:
    """Rows with one policy (native/reclaimer.h)."""

    def __init__(self, *, time_to_live: int = 0, by_score: bool = True) -> None: ...

class Reclaimer:
    """Which rows die when memory is short (native/reclaimer.h)."""

    def __init__(
        self, ranking: int, decay: Decay, clock: Clock, classes: Sequence[RowClass]
    ) -> None: ...
    def add(self, row_class: int, time: int, score: int, bytes: int) -> None: ...
    def remove(self, row_class: int, time: int, score: int, bytes: int) -> None: ...
    def dead(self, row_class: int, time: int, score: int) -> bool: ...
    def expired(self, row_class: int, time: int) -> bool: ...
    def condemn(self, bytes: int) -> int: ...
    def tick(self) -> int: ...
    def sweep_began(self) -> None: ...
    def sweep_ended(self) -> None: ...
    def sweep_due(self) -> bool: ...
    def bytes_of(self, row_class: int) -> int: ...
    def rows_of(self, row_class: int) -> int: ...
    def memory(self) -> int: ...
    def consistent(self) -> bool: ...
    def touch_all(self, times: NDArray[np.uint16], scores: NDArray[np.uint16]) -> None: ...
    @property
    def bytes(self) -> int: ...

class AdmissionSpec:
    """Which new ids of a tile get a row (native/admission.h)."""

    def __init__(self, kind: int, *, probability: float = 1.0, count: int = 1) -> None: ...

class Admission:
    """Which new ids of a rank get a row (native/admission.h)."""

    def __init__(self, by_tile: Sequence[AdmissionSpec], bytes: int, seed: int) -> None: ...
    def admit(self, tile: int, key: int, sightings: int, batch: int) -> bool: ...
    def admit_all(
        self, tile: int, keys: NDArray[np.uint64], sightings: NDArray[np.uint32], batch: int
    ) -> NDArray[np.bool_]: ...
    def estimate(self, tile: int, key: int) -> int: ...
    @property
    def bytes(self) -> int: ...

def score_value(scores: NDArray[np.uint16]) -> NDArray[np.uint64]: ...
def score_of(values: NDArray[np.uint64]) -> NDArray[np.uint16]: ...
def score_bin(scores: NDArray[np.uint16]) -> NDArray[np.uint32]: ...
def bin_value(bins: NDArray[np.uint32]) -> NDArray[np.uint64]: ...
def credited(
    scores: NDArray[np.uint16],
    intervals: NDArray[np.uint32],
    credits: NDArray[np.float32],
    decay: Decay,
) -> NDArray[np.uint16]: ...
def bucket_of(
    ids: NDArray[np.int64], table: int, buckets: int, dynamic: bool
) -> NDArray[np.int64]: ...
def id_of(
    positions: NDArray[np.int64], table: int, bucket: int, buckets: int
) -> NDArray[np.int64]: ...
def bucket_rows(rows: int, table: int, bucket: int, buckets: int) -> int: ...
def normal_of(x: NDArray[np.float32]) -> NDArray[np.float32]: ...
def narrow(values: NDArray[np.float32], dtype: int) -> NDArray[np.uint16]: ...
def narrow_stochastic(
    values: NDArray[np.float32], random: NDArray[np.uint32], dtype: int
) -> NDArray[np.uint16]: ...
def widen(values: NDArray[np.uint16], dtype: int) -> NDArray[np.float32]: ...
def narrow_lanes(values: NDArray[np.float32], dtype: int) -> NDArray[np.uint16]: ...
def widen_lanes(values: NDArray[np.uint16], dtype: int) -> NDArray[np.float32]: ...
def parallel_sums(n: int, threads: int, calls: int) -> int: ...
def reference_gather(
    table: NDArray[np.float32],
    ids: NDArray[np.int64],
    pool: int,
    ahead: int,
    out: NDArray[np.float32],
    threads: int,
) -> None: ...
def reference_update(
    table: NDArray[np.float32],
    sums: NDArray[np.float32],
    ids: NDArray[np.int64],
    gradient: NDArray[np.float32],
    ahead: int,
    threads: int,
) -> None: ...
def stream_read(array: NDArray[np.float32], threads: int) -> float: ...
def stream_copy(from_: NDArray[np.float32], to: NDArray[np.float32], threads: int) -> None: ...

class Tier:
    """A tier below the pad (native/tier.h). Rows are named by key; records (n, record bytes)."""

    def read(
        self,
        tile: int,
        keys: NDArray[np.uint64],
        records: NDArray[np.uint8],
        found: NDArray[np.bool_],
    ) -> None: ...
    def write(self, tile: int, keys: NDArray[np.uint64], records: NDArray[np.uint8]) -> None: ...
    def erase(self, tile: int, keys: NDArray[np.uint64]) -> int: ...
    def keys(self, tile: int) -> NDArray[np.uint64]: ...
    def rows(self, tile: int) -> int: ...
    @property
    def bytes(self) -> int: ...

class HostTier(Tier):
    """Records in memory (native/host_tier.h)."""

    def __init__(
        self,
        tiles: Sequence[TileSpec],
        key_base: NDArray[np.uint64],
        key_bits: NDArray[np.uint32],
        budget: int | None,
        huge_pages: bool,
    ) -> None: ...

class KindFacts:
    """Records of one kind, which lie together (native/file_tier.h)."""

    def __init__(self, dataset: str, record_bytes: int, segment_bytes: int) -> None: ...

class TileFacts:
    """What the file tier must know of a tile (native/file_tier.h)."""

    def __init__(
        self, label: str, key_base: int, key_bits: int, positions: int | None, kind: int
    ) -> None: ...

class FileTier(Tier):
    """Rows in one file (native/file_tier.h)."""

    def __init__(
        self,
        *,
        kinds: Sequence[KindFacts],
        tiles: Sequence[TileFacts],
        path: str,
        budget: int | None,
        buffer_bytes: int,
        disk: Disk,
        extend: Callable[[int, int], Sequence[int]],
    ) -> None: ...
    def charge_to(self, charge: Callable[[int], None] | None) -> None: ...
    def contains(self, tile: int, key: int) -> bool: ...
    def space(self, kind: int) -> tuple[int, int, int]:
        """Segments of a kind, those of them that are free, and rows that live."""
    def live(self, kind: int) -> NDArray[np.uint8]: ...
    def discard_free(self) -> None: ...
    def restore(self, kind: int, offsets: Sequence[int], live: NDArray[np.bool_]) -> None: ...
    @property
    def memory(self) -> int: ...
    @property
    def engine(self) -> str: ...

class Piece:
    """A piece of a file and its memory (native/disk.h)."""

    @property
    def offset(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    result: int
    """Bytes moved, or -errno."""

class Pieces:
    """The pieces of one call, which end with it."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> Piece: ...
    def first(self, n: int) -> Pieces: ...

class Disk:
    """Moves many pieces of one file at once (native/disk.h)."""

    @staticmethod
    def open(file: int, engine: str, depth: int) -> Disk: ...
    def read(self, pieces: Pieces, arrived: Callable[[int], None]) -> None: ...
    def write(self, pieces: Pieces, fill: Callable[[int], None]) -> None: ...
    @property
    def engine(self) -> str: ...

class PythonDisk(Disk):
    """An engine behind Python functions, for tests."""

    def __init__(
        self,
        real: Disk,
        read: Callable[[Pieces, Callable[[int], None]], None],
        write: Callable[[Pieces, Callable[[int], None]], None],
    ) -> None: ...

class Device:
    """A GPU through its driver (native/device.h). Closed when the last reference goes.

    library: the driver, "libcuda.so.1". ordinal: the GPU among those visible. kernels: the handle
    (CUfunction) of each kernel by name. relief: called when there is no memory left, once before
    one more attempt, on whatever thread wants it: gives back memory of the GPU that somebody keeps
    and does not use. It must not refer to this. Raises DeviceError where there is no driver or no
    such GPU.
    """

    def __init__(
        self,
        library: str,
        ordinal: int,
        kernels: Mapping[str, int],
        relief: Callable[[], None] | None = None,
    ) -> None: ...
    @property
    def ordinal(self) -> int: ...
    @property
    def processors(self) -> int:
        """Streaming multiprocessors."""

class DeviceIndex:
    """The key index of a GPU; fourfold.storage.device_index has its public face."""

    def __init__(self, device: Device, expected: int) -> None: ...
    def find(self, keys: int, slots: int, n: int, stream: int) -> None: ...
    def insert(
        self, keys: int, slots: int, n: int, first: int, free: int, num_free: int, stream: int
    ) -> int: ...
    def erase(self, keys: int, n: int, slots: int, stream: int) -> int: ...
    def items(self, keys: int, slots: int, stream: int) -> None: ...
    def clear(self, stream: int) -> None: ...
    def probes(self, stream: int) -> tuple[int, int]: ...
    def consistent(self, stream: int) -> bool: ...
    def growth(self, keys: int) -> int: ...
    def __len__(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def batch_bytes(self) -> int: ...

class DeviceScan:
    """Exclusive sums, in place; for tests."""

    def __init__(self, device: Device) -> None: ...
    def exclusive(self, data: int, n: int, total: int, stream: int) -> None: ...

class DeviceSort:
    """Stable sort of pairs; for tests."""

    def __init__(self, device: Device) -> None: ...
    def sort(
        self,
        keys: int,
        values: int,
        n: int,
        bits: int,
        sorted_keys: int,
        sorted_values: int,
        stream: int,
    ) -> None: ...

class DeviceDistinct:
    """Distinct ids; fourfold.storage.device_ids has its public face."""

    def __init__(self, device: Device) -> None: ...
    def find(
        self,
        ids: int,
        n: int,
        first: int,
        segments: int,
        distinct: int,
        inverse: int,
        count: int,
        segment_first: int,
        stream: int,
    ) -> None: ...
    def total(self, stream: int) -> int: ...

class DeviceBuckets:
    """Ids by bucket; fourfold.storage.device_ids has its public face."""

    def __init__(self, device: Device) -> None: ...
    def deal(
        self,
        ids: int,
        n: int,
        table: int,
        buckets: int,
        limit: int,
        dynamic: bool,
        hashed: bool,
        bucket: int,
        place: int,
        position: int,
        bucket_first: int,
        stream: int,
    ) -> None: ...

class DeviceGroups:
    """Positions by slot; fourfold.storage.device_ids has its public face."""

    def __init__(self, device: Device) -> None: ...
    def group(
        self,
        slots: int,
        n: int,
        limit: int,
        entry: int,
        group_slot: int,
        group_first: int,
        stream: int,
    ) -> None: ...
    def totals(self, stream: int) -> tuple[int, int]: ...

class DeviceAdmission:
    """Which new ids get a row; fourfold.storage.device_admission has its public face."""

    def __init__(
        self, device: Device, by_tile: Sequence[AdmissionSpec], bytes: int, seed: int
    ) -> None: ...
    def admit(
        self,
        tile: int,
        keys: int,
        sightings: int,
        n: int,
        batch: int,
        admitted: int,
        stream: int,
    ) -> None: ...
    def estimate(self, tile: int, keys: int, estimates: int, n: int, stream: int) -> None: ...
    @property
    def bytes(self) -> int: ...
    @property
    def batch_bytes(self) -> int: ...

def device_hash_ids(
    device: Device, raw: int, ids: int, n: int, limit: int, stream: int
) -> None: ...
def device_credit_scores(
    device: Device,
    decay: Decay,
    scores: int,
    intervals: int,
    credits: int,
    credited: int,
    n: int,
    stream: int,
) -> None: ...
def device_narrow(
    device: Device, source: int, to: int, n: int, dtype: int, random: int, stream: int
) -> None: ...
def device_widen(device: Device, source: int, to: int, n: int, dtype: int, stream: int) -> None: ...
def page_layout(record_bytes: int) -> tuple[int, int, int]:
    """Bytes of a page, records in it, and bytes of each."""

def crc32c(data: NDArray[np.uint8], plain: bool = False) -> int:
    """CRC-32C; `plain` without the CPU's instruction."""

def reference_read(disk: Disk, offsets: NDArray[np.uint64], bytes: int) -> None:
    """Reads `bytes` at each offset (n,) and drops them."""

def reference_write(disk: Disk, offsets: NDArray[np.uint64], bytes: int) -> None:
    """Writes `bytes` at each offset (n,)."""
