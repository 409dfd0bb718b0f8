"""Embedding tables as a user describes them, in a job file or in Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from fourfold.comm.route import Feature
from fourfold.comm.tile import Shape
from fourfold.runtime.errors import ConfigError
from fourfold.storage import Admission
from fourfold.storage.reclaim import Absent, AdmissionKind, Priority

Dtype = Literal["fp32", "bf16", "fp16"]
Pooling = Literal["sum", "mean", "none"]
Reply = Literal["auto", "rows", "pooled"]
OptimizerName = Literal["sgd", "adagrad", "rowwise_adagrad", "adam", "rowwise_adam", "ftrl"]
InitName = Literal["uniform", "normal", "constant"]

COMING_AND_GOING = (
    "admission",
    "admit_probability",
    "admit_count",
    "time_to_live",
    "priority",
    "absent",
)
"""Keys of dynamic tables only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingConfig:
    """What all tables share unless a table says otherwise."""

    # These change the results.
    dim: int = 64
    """Columns of a row, a multiple of 4."""
    dtype: Dtype = "fp32"
    """Weights at rest. bf16 and fp16 round stochastically on update; optimizer state stays fp32."""
    pooling: Pooling = "sum"
    """How a bag of ids becomes one vector; "none" keeps every row (sequence output)."""
    optimizer: OptimizerName = "rowwise_adagrad"
    """Optimizer of the rows; its formula is in `fourfold.storage.optimizer`."""
    optimizer_options: dict[str, float] = field(default_factory=dict)
    """Constants of that optimizer, by its own names (`eps`, `beta1`, ...)."""
    lr: float = 0.02
    """Learning rate of the rows."""
    init: InitName = "uniform"
    """Distribution of a new row's weights."""
    init_scale: float | None = None
    """Half-width, standard deviation or value. Default: 1 / sqrt(rows), as DLRM has it; 0.01 for a
    dynamic table, whose number of rows nobody knows."""
    wire: Dtype = "fp32"
    """Type of rows and gradients while they travel between ranks."""
    admission: AdmissionKind = "always"
    """Which ids of a dynamic table get a row. A batch's ids without one are asked about once:
    "probability" takes each with `admit_probability`, "count" about the `admit_count`-th time,
    "bloom" the second time, in less memory."""
    admit_probability: float | None = None
    """Of "probability", in (0, 1]."""
    admit_count: int | None = None
    """Of "count", 2 to 15."""
    time_to_live: int | Literal["never"] | None = None
    """Training batches after which a row of a dynamic table that none of them named may be taken
    back, before any other. None, or "never" where a table shall not have that of `[embedding]`: a
    row goes for its score only. `[reclaim]` says how rows go."""
    priority: Priority = "low"
    """ "high": rows never go for their score."""
    absent: Absent = "newborn"
    """What an id without a row reads as: the row that it would be born with, or zeros."""

    # These change the speed only.
    reply: Reply = "auto"
    """What travels back: "rows" (unique rows, the requester pools), "pooled" (sums, the owner
    pools), or "auto": whichever is fewer bytes in the first batches. Tables without pooling always
    reply rows."""

    def __post_init__(self) -> None:
        _check_ranges(self)
        _admission(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class TableConfig:
    """One logical embedding table. What is None comes from `[embedding]`."""

    name: str
    """Name of the table."""
    features: tuple[str, ...] = ()
    """Sparse features whose ids it holds; default: the feature of the same name."""
    rows: int | None = None
    """Ids lie in [0, rows). None: dynamic, any id, grows as ids appear."""
    expected_rows: int = 1_000_000
    """Of a dynamic table, for the planner only."""
    hash_ids: bool = False
    """Hash ids that do not fit the key of a dynamic table, accepting a small chance of
    collisions."""
    dim: int | None = None
    dtype: Dtype | None = None
    pooling: Pooling | None = None
    optimizer: OptimizerName | None = None
    optimizer_options: dict[str, float] | None = None
    init: InitName | None = None
    init_scale: float | None = None
    admission: AdmissionKind | None = None
    admit_probability: float | None = None
    admit_count: int | None = None
    time_to_live: int | Literal["never"] | None = None
    priority: Priority | None = None
    absent: Absent | None = None
    reply: Reply | None = None

    def __post_init__(self) -> None:
        if self.rows is not None and self.rows < 1:
            raise ConfigError(f"table {self.name!r}: rows must be at least 1, got {self.rows}")
        if self.dim is not None and (self.dim < 4 or self.dim % 4):
            raise ConfigError(
                f"table {self.name!r}: dim must be a positive multiple of 4, got {self.dim}"
            )
        asked = [name for name in COMING_AND_GOING if getattr(self, name) is not None]
        if self.rows is not None and asked:
            raise ConfigError(
                f"table {self.name!r}: {asked[0]} is for dynamic tables, whose rows come and go;"
                f" leave out rows = {self.rows} to make it one, or leave out {asked[0]}"
            )
        _check_ranges(self, f"table {self.name!r}: ")


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """One logical embedding table with nothing left open."""

    name: str
    features: tuple[str, ...]
    rows: int | None
    expected_rows: int
    hash_ids: bool
    dim: int
    dtype: Dtype
    pooling: Pooling
    optimizer: OptimizerName
    optimizer_options: dict[str, float]
    init: InitName
    init_scale: float
    admission: Admission
    time_to_live: int | None
    priority: Priority
    absent: Absent
    reply: Reply

    @property
    def shape(self) -> Shape:
        """What the exchange must know of it."""
        return Shape(name=self.name, dim=self.dim, rows=self.rows)


def complete_table(table: TableConfig, defaults: EmbeddingConfig) -> Table:
    """Fill what `table` leaves open from `defaults`."""
    shared = _with_own(table, defaults)
    if shared.pooling == "none":
        if table.reply == "pooled":
            raise ConfigError(f'table {table.name!r}: reply "pooled" needs a pooling, not "none"')
        shared = dataclasses.replace(shared, reply="rows")
    scale = shared.init_scale
    if scale is None:
        scale = table.rows**-0.5 if table.rows else 0.01
    return Table(
        name=table.name,
        features=table.features or (table.name,),
        rows=table.rows,
        expected_rows=table.rows or table.expected_rows,
        hash_ids=table.hash_ids,
        dim=shared.dim,
        dtype=shared.dtype,
        pooling=shared.pooling,
        optimizer=shared.optimizer,
        optimizer_options=shared.optimizer_options,
        init=shared.init,
        init_scale=scale,
        admission=_admission(shared),
        time_to_live=None if shared.time_to_live == "never" else shared.time_to_live,
        priority=shared.priority,
        absent=shared.absent,
        reply=shared.reply,
    )


def _with_own(table: TableConfig, defaults: EmbeddingConfig) -> EmbeddingConfig:
    """Replace the defaults that a table has its own of, and those that are not for its kind."""
    names = {f.name for f in dataclasses.fields(defaults)} & {
        f.name for f in dataclasses.fields(table)
    }
    chosen = {n: value for n in names if (value := getattr(table, n)) is not None}
    if table.optimizer is not None:  # the defaults are another optimizer's constants
        chosen.setdefault("optimizer_options", {})
    if table.admission not in (None, defaults.admission):  # and another admission's
        chosen = {"admit_probability": None, "admit_count": None} | chosen
    if table.rows is not None:
        plain = EmbeddingConfig()
        chosen |= {name: getattr(plain, name) for name in COMING_AND_GOING}
    try:
        return dataclasses.replace(defaults, **chosen)
    except ConfigError as error:
        raise ConfigError(f"table {table.name!r}: {error}") from error


def _admission(config: EmbeddingConfig) -> Admission:
    """Join the keys of admission. Raises ConfigError for those that do not go together."""
    for kind, name in (("probability", "admit_probability"), ("count", "admit_count")):
        value = getattr(config, name)
        if config.admission == kind and value is None:
            raise ConfigError(f'admission = "{kind}" needs {name}')
        if config.admission != kind and value is not None:
            raise ConfigError(
                f'{name} = {value} is of admission = "{kind}", but admission is'
                f' "{config.admission}": change it or leave out {name}'
            )
    return Admission(
        kind=config.admission,
        probability=1.0 if config.admit_probability is None else config.admit_probability,
        count=1 if config.admit_count is None else config.admit_count,
    )


def _check_ranges(config: EmbeddingConfig | TableConfig, where: str = "") -> None:
    probability, count, batches = config.admit_probability, config.admit_count, config.time_to_live
    if probability is not None and not 0 < probability <= 1:
        raise ConfigError(f"{where}admit_probability must be in (0, 1], got {probability}")
    if count is not None and not 2 <= count <= 15:
        raise ConfigError(f"{where}admit_count must be 2 to 15, got {count}")
    if isinstance(batches, int) and batches < 1:
        raise ConfigError(
            f"{where}time_to_live must be at least 1 training batch, got {batches}; leave it out"
            ' for rows that do not expire, or say "never"'
        )


def complete_tables(
    tables: Sequence[TableConfig], defaults: EmbeddingConfig, features: Sequence[str]
) -> tuple[tuple[Table, ...], tuple[Feature, ...]]:
    """Complete all tables and order the features of the data over them.

    tables: as the job lists them; features that no table names get a dynamic table of their own.
    features: the sparse features of the data, in its order. Raises ConfigError for a table named
    twice, a feature claimed twice, or a table whose feature the data do not have.
    """
    owner: dict[str, str] = {}
    completed: list[Table] = []
    for config in tables:
        table = complete_table(config, defaults)
        if any(table.name == other.name for other in completed):
            raise ConfigError(f"table {table.name!r} is listed twice: give each table one entry")
        for feature in table.features:
            if feature not in features:
                raise ConfigError(
                    f"table {table.name!r}: the data have no sparse feature {feature!r}"
                    f" (they have {', '.join(features)})"
                )
            if feature in owner:
                raise ConfigError(
                    f"feature {feature!r} is claimed by tables {owner[feature]!r} and"
                    f" {table.name!r}"
                )
            owner[feature] = table.name
        completed.append(table)
    for feature in features:
        if feature not in owner:
            completed.append(complete_table(TableConfig(name=feature), defaults))
            owner[feature] = feature
    ordinal = {table.name: i for i, table in enumerate(completed)}
    by_name = {table.name: table for table in completed}
    return tuple(completed), tuple(
        Feature(name=name, table=ordinal[owner[name]], pooling=by_name[owner[name]].pooling)
        for name in features
    )
