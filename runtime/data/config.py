"""The `[data]` section of a job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fourfold.runtime.errors import ConfigError

_KINDS = ("criteo", "csv", "parquet", "hdf5")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """The `[data]` section: which files, and what their columns mean.

    Raises ConfigError for what cannot be. Whether the files exist is seen when they are opened.
    """

    # These change the results.
    kind: Literal["criteo", "csv", "parquet", "hdf5"] = "criteo"
    """Format of the files: Criteo's click logs (tab-separated, plain or gzip), CSV with a column
    mapping (plain or gzip), Parquet with a column mapping, or what `fourfold convert` writes."""
    paths: tuple[str, ...] = ()
    """Files, folders or globs, read in this order; a folder or glob is sorted as people count."""
    eval_paths: tuple[str, ...] = ()
    """Held-out files. Without them, `holdout` may set rows of `paths` aside."""
    holdout: float = 0.0
    """Share of the rows of `paths` that is kept from training, for evaluation, in [0, 1). A row's
    number decides by hash, so the same rows are held out in every run and on any rank count."""
    label: str = "label"
    """Column of the label, 0 or 1 (csv, parquet)."""
    dense: tuple[str, ...] = ()
    """Columns of numbers (csv, parquet). An empty value reads as 0."""
    sparse: tuple[str, ...] = ()
    """Columns of ids, whole numbers in [0, 2^63) used as they are (csv, parquet). Parquet columns
    of lists are bags. An empty value is a bag without ids."""
    hashed: tuple[str, ...] = ()
    """Those of `sparse` whose values are text, hashed to 52-bit ids. Parquet columns of strings
    always are."""
    lists: tuple[str, ...] = ()
    """Those of `sparse` that hold several values in one text, with `list_separator` between."""
    weights: dict[str, str] = field(default_factory=dict)
    """Column with the weights of a sparse column's ids, by sparse column: numbers, as many as ids.
    Ids of other columns weigh 1."""
    columns: tuple[str, ...] = ()
    """Names of all columns of a CSV file that has no header line. Empty: the first line of each
    file names them."""
    delimiter: str = ","
    """Character between the columns of a CSV file."""
    list_separator: str = ","
    """Character between the values of one field: in CSV and Parquet text columns in `lists`, and
    between the ids of a multi-hot field of a Criteo log."""
    dense_transform: Literal["auto", "log1p", "none"] = "auto"
    """What is done to dense values x: "log1p" is log(1 + max(x, 0)), so that negative values count
    as 0. "auto": log1p for criteo, for hdf5 that of the job it was converted with, else none."""
    on_error: Literal["raise", "skip"] = "raise"
    """What to do about a malformed row: fail naming file and line, or drop and count it."""

    def __post_init__(self) -> None:
        self._check_choices()
        if not 0 <= self.holdout < 1:
            raise ConfigError(f"holdout must be in [0, 1), got {self.holdout}")
        if self.holdout and self.eval_paths:
            raise ConfigError("holdout and eval_paths exclude each other: set one of them")
        if self.kind in ("criteo", "hdf5"):
            self._check_no_mapping()
        else:
            self._check_mapping()

    @property
    def has_eval(self) -> bool:
        """Whether there are data to evaluate on."""
        return bool(self.eval_paths) or self.holdout > 0

    def _check_choices(self) -> None:
        for name, value, choices in (
            ("kind", self.kind, _KINDS),
            ("dense_transform", self.dense_transform, ("auto", "log1p", "none")),
            ("on_error", self.on_error, ("raise", "skip")),
        ):
            if value not in choices:
                raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        for name in ("delimiter", "list_separator"):
            value = getattr(self, name)
            if len(value) != 1 or not value.isascii() or value in '\n\r"':
                raise ConfigError(f"{name} must be one ASCII character, got {value!r}")

    def _check_no_mapping(self) -> None:
        for name in ("dense", "sparse", "hashed", "lists", "weights", "columns"):
            if getattr(self, name):
                raise ConfigError(
                    f"{name} is for csv and parquet: {self.kind} files name their own columns; "
                    "leave it out"
                )
        if self.kind == "criteo" and self.list_separator in "\t0123456789abcdefABCDEF":
            raise ConfigError(f"list_separator cannot be {self.list_separator!r} in a Criteo log")

    def _check_mapping(self) -> None:
        if not self.dense and not self.sparse:
            raise ConfigError(f"{self.kind} needs dense or sparse: the columns to read")
        roles = (self.label, *self.dense, *self.sparse, *self.weights.values())
        for name in roles:
            if roles.count(name) > 1:
                raise ConfigError(
                    f"column {name!r} has two uses among label, dense, sparse and weights"
                )
            if self.columns and name not in self.columns:
                raise ConfigError(f"column {name!r} is not in columns")
        for subset in ("hashed", "lists", "weights"):
            for name in getattr(self, subset):
                if name not in self.sparse:
                    raise ConfigError(f"{subset} names {name!r}, which is not in sparse")
        for name in self.columns:
            if self.columns.count(name) > 1:
                raise ConfigError(f"columns names {name!r} twice")
        if self.kind == "parquet" and self.columns:
            raise ConfigError("columns is for csv: Parquet files name their columns; leave it out")
