"""Criteo's click logs: tab-separated label, 13 integers, 26 categorical values; a sample a line.

Ids are the hexadecimal values as they are: no vocabulary and no pass over the data beforehand. A
missing categorical value is id 0, as in DLRM's and TorchRec's preprocessing, so that "missing" has
a row of its own and learns; a missing integer is 0. A field may hold several values with the list
separator between them (multi-hot logs); Criteo's own have one.

A block of lines is parsed at once, with no Python per line or field: the separators cut it into a
(lines, 40) matrix of fields, and all fields of a kind are decoded together (fields.py).
"""

from __future__ import annotations

import numpy as np

from fourfold.runtime.data.batch import Batch, Float32, Int64, Schema, offsets_of
from fourfold.runtime.data.faults import Faults, mismatch, quote
from fourfold.runtime.data.fields import (
    FRONT,
    MAX_DIGITS,
    Bytes,
    padded,
    parse_decimal,
    parse_hex8,
    split_fields,
)
from fourfold.runtime.data.lines import Chunk

DENSE = 13
SPARSE = 26
SCHEMA = Schema(
    dense=tuple(f"I{i}" for i in range(1, DENSE + 1)),
    sparse=tuple(f"C{i}" for i in range(1, SPARSE + 1)),
    label="label",
)

_FIELDS = 1 + DENSE + SPARSE


class CriteoParser:
    """Parse lines of a Criteo log; `list_separator` stands between the ids of a multi-hot field."""

    def __init__(self, list_separator: str) -> None:
        self._list_separator = ord(list_separator)

    def __call__(self, chunk: Chunk) -> tuple[Batch, Faults]:
        """Parse all lines of a chunk; the values of malformed ones are meaningless."""
        faults = Faults(len(chunk.numbers))
        buffer = padded(chunk.text)
        starts, ends = _cut(buffer, faults)
        label = _parse_label(buffer, starts[0], ends[0], faults)
        dense = _parse_dense(buffer, starts[1 : DENSE + 1], ends[1 : DENSE + 1], faults)
        ids, lengths = self._parse_sparse(buffer, starts[DENSE + 1 :], ends[DENSE + 1 :], faults)
        return Batch(dense=dense, label=label, ids=ids, offsets=offsets_of(lengths)), faults

    def _parse_sparse(
        self, buffer: Bytes, starts: Int64, ends: Int64, faults: Faults
    ) -> tuple[Int64, Int64]:
        """Read the ids of all categorical fields: (26, n) spans -> ids (L,), lengths (26 * n,)."""
        n = starts.shape[1]
        starts, ends = starts.ravel(), ends.ravel()
        lengths = np.ones(len(starts), np.int64)
        cuts = np.flatnonzero(buffer == self._list_separator)
        multi_hot = len(cuts) > 0
        if multi_hot:
            starts, ends, lengths = split_fields(starts, ends, cuts)
        ids, bad = parse_hex8(buffer, starts, ends)
        if multi_hot:  # an empty value is a missing field, but not between separators
            bad |= (starts == ends) & np.repeat(lengths > 1, lengths)
        at = np.flatnonzero(bad)
        field, row = np.divmod(np.repeat(np.arange(len(lengths)), lengths)[at], n)
        faults.mark(
            row,
            lambda k: mismatch(
                SCHEMA.sparse[field[k]],
                "8 hexadecimal digits or nothing",
                _text(buffer, starts[at[k]], ends[at[k]]),
            ),
        )
        return ids, lengths


def _cut(buffer: Bytes, faults: Faults) -> tuple[Int64, Int64]:
    """Find the fields of all lines: starts (40, n) and ends (40, n).

    A line with another number of fields is marked, and its fields are made empty.
    """
    separators = np.flatnonzero(buffer - np.uint8(ord("\t")) < 2)  # TAB or LF, which is TAB + 1
    counts = np.diff(np.flatnonzero(buffer[separators] == ord("\n")), prepend=-1)
    starts = np.concatenate([[FRONT], separators[:-1] + 1])
    wrong = np.flatnonzero(counts != _FIELDS)
    if len(wrong):
        faults.mark(
            wrong, lambda k: mismatch("", f"{_FIELDS} fields between tabs", str(counts[wrong[k]]))
        )
        right = counts == _FIELDS
        spans = np.full((2, len(counts), _FIELDS), FRONT)
        for span, points in zip(spans, (starts, separators), strict=True):
            span[right] = points[np.repeat(right, counts)].reshape(-1, _FIELDS)
        starts, separators = spans
    ends = np.ascontiguousarray(separators.reshape(-1, _FIELDS).T)
    ends[-1] -= buffer[ends[-1] - 1] == ord("\r")
    return np.ascontiguousarray(starts.reshape(-1, _FIELDS).T), ends


def _parse_label(buffer: Bytes, starts: Int64, ends: Int64, faults: Faults) -> Float32:
    """Read labels 0 or 1: (n,) spans -> float32 (n,)."""
    label = buffer[starts] - np.uint8(ord("0"))
    bad = np.flatnonzero((ends - starts != 1) | (label > 1))
    faults.mark(
        bad,
        lambda k: mismatch(SCHEMA.label, "0 or 1", _text(buffer, starts[bad[k]], ends[bad[k]])),
    )
    return label.astype(np.float32)


def _parse_dense(buffer: Bytes, starts: Int64, ends: Int64, faults: Faults) -> Float32:
    """Read the integers: (13, n) spans -> float32 (n, 13)."""
    columns, n = starts.shape
    starts, ends = starts.ravel(), ends.ravel()
    values, bad = parse_decimal(buffer, starts, ends)
    at = np.flatnonzero(bad)
    column, row = np.divmod(at, n)
    faults.mark(
        row,
        lambda k: mismatch(
            SCHEMA.dense[column[k]],
            f"a whole number of at most {MAX_DIGITS} digits or nothing",
            _text(buffer, starts[at[k]], ends[at[k]]),
        ),
    )
    return np.ascontiguousarray(values.reshape(columns, n).T, dtype=np.float32)


def _text(buffer: Bytes, start: int, end: int) -> str:
    return quote(buffer[start:end].tobytes())
