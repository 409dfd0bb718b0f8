"""Embedding tables as a user describes them, in a job file or in Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from fourfold.comm.route import Feature
from fourfold.comm.tile import Shape
from fourfold.runtime.errors import ConfigError

Dtype = Literal["fp32", "bf16", "fp16"]
Pooling = Literal["sum", "mean", "none"]
Reply = Literal["auto", "rows", "pooled"]
OptimizerName = Literal["sgd", "adagrad", "rowwise_adagrad", "adam", "rowwise_adam", "ftrl"]
InitName = Literal["uniform", "normal", "constant"]


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

    # These change the speed only.
    reply: Reply = "auto"
    """What travels back: "rows" (unique rows, the requester pools), "pooled" (sums, the owner
    pools), or "auto": whichever is fewer bytes in the first batches. Tables without pooling always
    reply rows."""


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
    reply: Reply | None = None

    def __post_init__(self) -> None:
        if self.rows is not None and self.rows < 1:
            raise ConfigError(f"table {self.name!r}: rows must be at least 1, got {self.rows}")
        if self.dim is not None and (self.dim < 4 or self.dim % 4):
            raise ConfigError(
                f"table {self.name!r}: dim must be a positive multiple of 4, got {self.dim}"
            )


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
    reply: Reply

    @property
    def shape(self) -> Shape:
        """What the exchange must know of it."""
        return Shape(name=self.name, dim=self.dim, rows=self.rows)


def complete_table(table: TableConfig, defaults: EmbeddingConfig) -> Table:
    """Fill what `table` leaves open from `defaults`."""
    chosen = {
        name: value
        for name in ("dim", "dtype", "pooling", "optimizer", "optimizer_options", "init", "reply")
        if (value := getattr(table, name)) is not None
    }
    if "optimizer" in chosen and "optimizer_options" not in chosen:
        chosen["optimizer_options"] = {}  # the defaults are another optimizer's constants
    shared = dataclasses.replace(defaults, **chosen)
    if shared.pooling == "none":
        if table.reply == "pooled":
            raise ConfigError(f'table {table.name!r}: reply "pooled" needs a pooling, not "none"')
        shared = dataclasses.replace(shared, reply="rows")
    scale = table.init_scale if table.init_scale is not None else defaults.init_scale
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
        reply=shared.reply,
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
