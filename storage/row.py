"""What fixes the rows of one held tile."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fourfold.storage import _native
from fourfold.storage.init import Init
from fourfold.storage.key import KeyCode
from fourfold.storage.optimizer import Optimizer
from fourfold.storage.reclaim import Absent, Admission, Priority

DTYPES = ("fp32", "bf16", "fp16")
"""Names of the element types, in the order of their native codes."""


def dtype_code(name: str) -> int:
    """Native code of an element type; ValueError for a name that is none."""
    if name not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {name!r}")
    return DTYPES.index(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSpec:
    """The rows of one held tile: where they belong, what they consist of, how they begin."""

    table: int
    """Ordinal of the table in the job."""
    name: str
    """Name of the table, for messages."""
    dim: int
    """Columns of the tile."""
    column: int = 0
    """First of them in the table."""
    rows: int | None
    """Ids of the table are in [0, rows); None: dynamic, any id."""
    bucket: int = 0
    """The tile holds row bucket `bucket` of `buckets`."""
    buckets: int = 1
    dtype: str = "fp32"
    """Type of the weights: fp32, bf16 or fp16."""
    optimizer: Optimizer
    init: Init
    seed: int = 0
    admission: Admission = field(default_factory=Admission)
    """Which ids get a row."""
    time_to_live: int | None = None
    """Training batches after which a row that nobody names may be forgotten; None: for ever."""
    priority: Priority = "low"
    """Whether a row may be forgotten for its score: not if "high"."""
    absent: Absent = "newborn"
    """What an id without a row reads: the row it would be born as, or zeros."""

    MAX_DIM: ClassVar[int] = 65536

    def __post_init__(self) -> None:
        dtype_code(self.dtype)
        where = f"table {self.name!r}"
        if not 1 <= self.dim <= self.MAX_DIM:
            raise ValueError(f"{where}: dim must be in [1, {self.MAX_DIM}], got {self.dim}")
        if not 0 <= self.bucket < self.buckets < 2**32:
            raise ValueError(f"{where}: no bucket {self.bucket} of {self.buckets}")
        if self.column < 0 or self.table < 0:
            raise ValueError(f"{where}: column and table must be >= 0")
        if self.rows is not None and not 0 <= self.rows < 2**62:
            raise ValueError(f"{where}: rows must be in [0, 2**62), got {self.rows}")
        if self.rows is not None and (self.admission.kind != "always" or self.time_to_live):
            raise ValueError(
                f"{where}: admission and time_to_live are for dynamic tables; leave out rows"
            )
        if self.time_to_live is not None and self.time_to_live < 1:
            raise ValueError(
                f"{where}: time_to_live must be at least 1 batch, got {self.time_to_live}"
            )
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"{where}: seed must be in [0, 2**64), got {self.seed}")

    @property
    def dynamic(self) -> bool:
        """Whether any id may come."""
        return self.rows is None

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in memory: weights, optimizer state, metadata and alignment."""
        return self.native().row_bytes()

    @property
    def record(self) -> np.dtype[np.void]:
        """Fields of a row without gaps, as `Pad.read` and `Pad.scan` give it.

        `weights` (dim,) float32, or uint16 bits of bf16 or fp16; `state` (element states, dim)
        and `row_state` (row states,) float32; `time` and `score` uint16.
        """
        weight = np.float32 if self.dtype == "fp32" else np.uint16
        optimizer = self.optimizer
        return np.dtype(
            [
                ("weights", weight, (self.dim,)),
                ("state", np.float32, (optimizer.element_states, self.dim)),
                ("row_state", np.float32, (optimizer.row_states,)),
                ("time", np.uint16),
                ("score", np.uint16),
            ]
        )

    def native(self) -> _native.TileSpec:
        """Give the same facts to the native core."""
        optimizer = self.optimizer
        parameters = {
            field: float(getattr(optimizer, field))
            for field in ("eps", "beta1", "beta2", "beta", "l1", "l2")
            if hasattr(optimizer, field)
        }
        return _native.TileSpec(
            name=self.name,
            table=self.table,
            dim=self.dim,
            column=self.column,
            rows=-1 if self.rows is None else self.rows,
            bucket=self.bucket,
            buckets=self.buckets,
            dtype=dtype_code(self.dtype),
            optimizer=_native.OptimizerSpec(
                optimizer.kind,
                **parameters,
                initial=float(getattr(optimizer, "initial_accumulator", 0.0)),
            ),
            init=self.init.kind,
            scale=self.init.scale,
            seed=self.seed,
            admission=self.admission.code,
            admit_probability=self.admission.probability,
            admit_count=self.admission.count,
            time_to_live=self.time_to_live or 0,
            high_priority=self.priority == "high",
            absent_zeros=self.absent == "zeros",
        )


def key_ranges(specs: Sequence[RowSpec]) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """Give base and bits of the key range of each tile, (T,).

    Tiles of one table share its range; the core keeps them apart.
    """
    tables = sorted({spec.table for spec in specs})
    rows = {spec.table: spec.rows for spec in specs}
    code = KeyCode.of([rows[table] for table in tables])
    at = [tables.index(spec.table) for spec in specs]
    base = np.array([code.base[i] for i in at], dtype=np.uint64)
    return base, np.array([code.bits[i] for i in at], dtype=np.uint32)
