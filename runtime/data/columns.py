"""Turn columns of Arrow tables into labels, numbers and bags of ids.

CSV columns come as text, Parquet columns as what the file says. An empty text and a null are both
"no value". Text is turned into numbers column by column; only where that fails is the column halved
until the malformed values stand alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fourfold.runtime.data.batch import Float32, Int64
from fourfold.runtime.data.faults import Faults, mismatch, quote
from fourfold.runtime.data.hashing import text_ids

_ID = "a whole number in [0, 2^63)"
_NUMBER = "a finite number"


@dataclass(slots=True)
class Values:
    """The m values of one column in n rows: a row has none, one or, as a list, several."""

    name: str
    flat: pa.Array  # (m,)
    lengths: Int64  # (n,)

    @property
    def rows(self) -> Int64:
        """Row of each value, int64 (m,)."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def mark(self, bad: npt.NDArray[np.bool_], expected: str, faults: Faults) -> None:
        """Note that the values at `bad`, a mask (m,), are malformed."""
        if bad.any():
            at = np.flatnonzero(bad)
            faults.mark(
                self.rows[at],
                lambda k: mismatch(self.name, expected, quote(self.flat[int(at[k])].as_py())),
            )


def values_of(name: str, column: pa.Array, separator: str | None = None) -> Values:
    """Take the values out of a column (n,) of scalars, of lists, or of texts to be split."""
    column = _decoded(column)
    if is_text(column.type):
        empty = pc.equal(pc.binary_length(column), 0)
        if pc.any(empty).as_py():
            column = pc.if_else(empty, None, column)
        if separator is not None:
            column = pc.split_pattern(column, separator.encode())
    if is_list(column.type):
        lengths = pc.fill_null(pc.list_value_length(column), 0)
        flat = _decoded(pc.list_flatten(column))
        return Values(name, flat, _numpy(lengths).astype(np.int64))
    present = _numpy(pc.is_valid(column)).astype(np.int64)
    return Values(name, column.drop_null() if column.null_count else column, present)


def read_label(values: Values, faults: Faults) -> Float32:
    """Read labels, 0 or 1, float32 (n,)."""
    numbers, bad = _cast(values.flat, pa.float64())
    values.mark(bad | ((numbers != 0) & (numbers != 1)), "0 or 1", faults)
    missing = np.flatnonzero(values.lengths != 1)
    faults.mark(missing, lambda k: mismatch(values.name, "0 or 1", "nothing"))
    return _spread(numbers, values.lengths)


def read_dense(values: Values, faults: Faults) -> Float32:
    """Read numbers, float32 (n,); no value is 0."""
    return _spread(_floats(values, faults), values.lengths)


def read_ids(values: Values, faults: Faults, *, hashed: bool) -> Int64:
    """Read whole numbers as ids, or hash text to ids, int64 (m,)."""
    if hashed:
        values.mark(_empty(values.flat), "text", faults)
        return _hash(values.flat)
    numbers, bad = _cast(values.flat, pa.int64())
    hint = ", as the column is not in data.hashed" if is_text(values.flat.type) else ""
    values.mark(bad | (numbers < 0), _ID + hint, faults)
    return numbers.astype(np.int64, copy=False)


def read_weights(values: Values, lengths: Int64, faults: Faults) -> Float32:
    """Read the weights of ids; lengths: ids per row (n,). Gives float32, one for each id."""
    uneven = values.lengths != lengths
    at = np.flatnonzero(uneven)
    faults.mark(
        at,
        lambda k: mismatch(
            values.name, f"{lengths[at[k]]} weights, as many as ids", str(values.lengths[at[k]])
        ),
    )
    weights = np.ones(int(lengths.sum()), np.float32)
    weights[~np.repeat(uneven, lengths)] = _floats(values, faults)[
        ~np.repeat(uneven, values.lengths)
    ]
    return weights


def is_text(kind: pa.DataType) -> bool:
    """Whether values are text; CSV's are binary, so that any encoding passes."""
    return kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())


def is_list(kind: pa.DataType) -> bool:
    """Whether a column is made of lists."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def value_type(kind: pa.DataType) -> pa.DataType:
    """Give the type of the values of a column, out of their lists and dictionaries."""
    while is_list(kind) or pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind


def _decoded(values: pa.Array) -> pa.Array:
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def _floats(values: Values, faults: Faults) -> Float32:
    numbers, bad = _cast(values.flat, pa.float64())
    with np.errstate(over="ignore"):
        floats = numbers.astype(np.float32)
    values.mark(bad | ~np.isfinite(floats), _NUMBER, faults)
    return floats


def _spread(numbers: npt.NDArray[Any], lengths: Int64) -> Float32:
    """Put single values in their rows, float32 (n,), with 0 in rows that have none."""
    spread = np.zeros(len(lengths), np.float32)
    spread[lengths == 1] = numbers
    return spread


def _cast(values: pa.Array, kind: pa.DataType) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Convert values to a type; gives the numbers, and a mask of the values that are none."""
    if not len(values):
        return np.empty(0, kind.to_pandas_dtype()), np.empty(0, np.bool_)
    try:
        return _numpy(pc.fill_null(_as_number(values, kind), 0)), _numpy(pc.is_null(values))
    except pa.ArrowInvalid:
        if len(values) == 1:
            return np.zeros(1, kind.to_pandas_dtype()), np.ones(1, np.bool_)
    half = len(values) // 2
    parts = _cast(values[:half], kind), _cast(values[half:], kind)
    numbers, bad = zip(*parts, strict=True)
    return np.concatenate(numbers), np.concatenate(bad)


def _as_number(values: pa.Array, kind: pa.DataType) -> pa.Array:
    try:
        return pc.cast(values, kind)
    except pa.ArrowInvalid:
        if not is_text(values.type):
            raise
    # Spaces around it do not make a number malformed.
    text = pa.large_string() if pa.types.is_large_binary(values.type) else pa.string()
    return pc.cast(pc.ascii_trim_whitespace(values.view(text)), kind)


def _hash(values: pa.Array) -> Int64:
    """Hash values as text, int64 (m,)."""
    if not is_text(values.type):
        values = pc.cast(values, pa.string())
    values = pc.cast(values, pa.large_binary())
    _, at, data = values.buffers()
    offsets = np.frombuffer(at, np.int64, len(values) + 1, 8 * values.offset)
    first, last = int(offsets[0]), int(offsets[-1])
    text = np.zeros(last - first + 8, np.uint8)
    if last > first:
        text[:-8] = np.frombuffer(data, np.uint8, last - first, first)
    return text_ids(text, offsets[:-1] - first, np.diff(offsets))


def _empty(values: pa.Array) -> npt.NDArray[np.bool_]:
    """Mask the nulls and the empty texts."""
    if not is_text(values.type):
        return _numpy(pc.is_null(values))
    return _numpy(pc.fill_null(pc.equal(pc.binary_length(values), 0), True))


def _numpy(values: pa.Array) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return array
