"""What readers hand to training: a schema, and batches of samples laid out feature by feature.

Shapes: B samples, D dense features, F sparse features, L ids. A bag is the ids of one sample in one
sparse feature; it may be empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Schema:
    """Names of the features, in the order in which batches hold them."""

    dense: tuple[str, ...]
    sparse: tuple[str, ...]
    label: str
    weighted: bool = False
    """Whether batches have a weight for every id."""


@dataclass(slots=True)
class Batch:
    """B samples of this rank; B may be 0.

    The ids are feature-major: bag b of feature f is `ids[offsets[f*B + b] : offsets[f*B + b + 1]]`.
    """

    dense: Float32  # (B, D)
    label: Float32  # (B,)
    ids: Int64  # (L,) never negative
    offsets: Int64  # (F*B + 1,)
    weights: Float32 | None = None  # (L,) weight of each id; None: no feature has weights

    @property
    def size(self) -> int:
        """Number of samples."""
        return len(self.label)

    def lengths(self) -> Int64:
        """Count the ids of every bag, int64 (F, B)."""
        bags = np.diff(self.offsets)
        return bags.reshape(-1, self.size) if self.size else bags.reshape(0, 0)

    def keep(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Batch:
        """Give the samples at `rows` (indices or a mask), in that order."""
        if not self.size:
            return self
        starts = self.offsets[:-1].reshape(-1, self.size)[:, rows].ravel()
        lengths = self.lengths()[:, rows].ravel()
        at = ranges(starts, lengths)
        return Batch(
            dense=self.dense[rows],
            label=self.label[rows],
            ids=self.ids[at],
            offsets=offsets_of(lengths),
            weights=None if self.weights is None else self.weights[at],
        )


def empty_batch(schema: Schema) -> Batch:
    """Make a batch of no samples."""
    return Batch(
        dense=np.empty((0, len(schema.dense)), np.float32),
        label=np.empty(0, np.float32),
        ids=np.empty(0, np.int64),
        offsets=np.zeros(1, np.int64),
        weights=np.empty(0, np.float32) if schema.weighted else None,
    )


def join_batches(parts: Sequence[Batch], schema: Schema) -> Batch:
    """Put batches of one schema after each other."""
    parts = [part for part in parts if part.size]
    if not parts:
        return empty_batch(schema)
    if len(parts) == 1:
        return parts[0]
    features = range(len(schema.sparse))
    # Where each part's bags of feature f lie in its ids.
    spans = [
        [slice(*part.offsets[[f * part.size, (f + 1) * part.size]]) for part in parts]
        for f in features
    ]
    pairs = [(part, span) for row in spans for part, span in zip(parts, row, strict=True)]
    none = np.empty(0, np.int64)
    weights = [part.weights[span] for part, span in pairs if part.weights is not None]
    lengths = np.concatenate([part.lengths() for part in parts], axis=1) if features else none
    return Batch(
        dense=np.concatenate([part.dense for part in parts]),
        label=np.concatenate([part.label for part in parts]),
        ids=np.concatenate([part.ids[span] for part, span in pairs] or [none]),
        offsets=offsets_of(lengths.ravel()),
        weights=np.concatenate([*weights, np.empty(0, np.float32)]) if schema.weighted else None,
    )


def offsets_of(lengths: Int64) -> Int64:
    """Turn the lengths of n bags into their n + 1 offsets."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def ranges(starts: Int64, lengths: Int64) -> Int64:
    """Concatenate the integer ranges [starts[i], starts[i] + lengths[i])."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - ends + lengths, lengths) + np.arange(total)
