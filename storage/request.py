"""What the dense ranks ask of the rows of one rank, for one batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)


class Request(Protocol):
    """What the dense ranks ask for. S segments, ordered by (held tile, requester); n ids.

    A segment asks rows of one tile. It is answered by one reply row per id, or, if pooled, by one
    per bag. The ids of a segment that is not pooled are distinct.
    """

    @property
    def tile(self) -> NDArray[np.int32]:
        """(S,) index into the specs of the pad."""

    @property
    def ids(self) -> NDArray[np.int64]:
        """(n,) positions in the bucket (static tables) or ids (dynamic ones)."""

    @property
    def first(self) -> NDArray[np.int64]:
        """(S+1,) segment s owns ids[first[s]:first[s+1]]."""

    @property
    def bags(self) -> NDArray[np.int64]:
        """(S+1,) segment s is answered by bags[s+1] - bags[s] reply rows."""

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Ids per bag of the pooled segments, one after the other."""

    @property
    def pooled(self) -> NDArray[np.bool_]:
        """(S,) whether bags are summed here."""

    @property
    def weights(self) -> NDArray[np.float32] | None:
        """(n,) factor of each id in its bag's sum; None or empty: all 1."""

    @property
    def credits(self) -> NDArray[np.float32] | None:
        """(n,) what each id's appearances count for in its row's score, >= 0; None: 1 each."""

    @property
    def replies(self) -> NDArray[np.bool_]:
        """(S,) False: the requester reads elsewhere and only sends its gradient."""


@dataclass(frozen=True, slots=True)
class Segment:
    """What one requester asks of one tile."""

    tile: int
    ids: NDArray[np.int64]
    lengths: NDArray[np.int32] | None = None
    """Ids per bag: answer with sums. None: answer with rows, ids are distinct."""
    weights: NDArray[np.float32] | None = None
    """Factor of each id in its bag's sum."""
    reply: bool = True
    credits: NDArray[np.float32] | None = None
    """What each id's appearances count for in its row's score."""


@dataclass(frozen=True, slots=True)
class SegmentedRequest:
    """A request put together from segments in one process, without an exchange."""

    tile: NDArray[np.int32]
    ids: NDArray[np.int64]
    first: NDArray[np.int64]
    bags: NDArray[np.int64]
    lengths: NDArray[np.int32]
    pooled: NDArray[np.bool_]
    weights: NDArray[np.float32] | None
    replies: NDArray[np.bool_]
    credits: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> "SegmentedRequest":
        """Lay out segments, which are in the order (tile, requester)."""
        lengths = [s.lengths for s in segments if s.lengths is not None]
        rows = [len(s.ids) if s.lengths is None else len(s.lengths) for s in segments]
        return cls(
            tile=np.array([s.tile for s in segments], np.int32),
            ids=_joined([s.ids for s in segments], np.int64),
            first=np.cumsum([0] + [len(s.ids) for s in segments], dtype=np.int64),
            bags=np.cumsum([0, *rows], dtype=np.int64),
            lengths=_joined(lengths, np.int32),
            pooled=np.array([s.lengths is not None for s in segments], np.bool_),
            weights=_values([s.weights for s in segments], segments),
            replies=np.array([s.reply for s in segments], np.bool_),
            credits=_values([s.credits for s in segments], segments),
        )

    def addresses(self, rows: Sequence[NDArray[np.generic]]) -> NDArray[np.uint64]:
        """Address of one C-contiguous array of reply or gradient rows per segment, (S,)."""
        return np.array([array.ctypes.data for array in rows], np.uint64)


def _values(
    given: Sequence[NDArray[np.float32] | None], segments: Sequence[Segment]
) -> NDArray[np.float32] | None:
    """One value per id: 1 where a segment gives none, None where no segment does."""
    if all(values is None for values in given):
        return None
    filled = [
        np.ones(len(s.ids), np.float32) if values is None else values
        for values, s in zip(given, segments, strict=True)
    ]
    return _joined(filled, np.float32)


def _joined(parts: Sequence[NDArray[T]], dtype: type[T]) -> NDArray[T]:
    return np.ascontiguousarray(np.concatenate([np.empty(0, dtype), *parts]), dtype=dtype)
