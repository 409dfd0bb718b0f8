"""Area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

It is counted exactly, over many ranks too, by a sample sort. Equal scores are first gathered into
one entry with its counts. All ranks agree on splitters and every score goes to the rank whose range
it falls in, so a tie is never split. A rank then counts the pairs in its range, and the totals of
the ranks below tell how many negatives lie under all of its positives. Counts are integers, so any
number of ranks gives the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from mpi4py import MPI

# Scores that each rank offers as splitters.
_OFFERED = 256


@dataclass(frozen=True, slots=True, eq=False)
class ScoreCounts:
    """How many positives and negatives have each score; n distinct scores.

    score: float32 (n,), ascending, no NaN; positives, negatives: int64 (n,)
    """

    score: npt.NDArray[np.float32]
    positives: npt.NDArray[np.int64]
    negatives: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls,
        score: npt.NDArray[np.float32],
        positives: npt.NDArray[np.int64],
        negatives: npt.NDArray[np.int64],
    ) -> ScoreCounts:
        """Gather equal scores; arrays (n,) in any order."""
        if len(score) == 0:
            return cls(score, positives, negatives)
        order = np.argsort(score)
        score = score[order]
        first = np.flatnonzero(np.append(True, score[1:] != score[:-1]))
        return cls(
            score[first],
            np.add.reduceat(positives[order], first),
            np.add.reduceat(negatives[order], first),
        )

    @property
    def totals(self) -> tuple[int, int]:
        """Number of positives and of negatives."""
        return int(self.positives.sum()), int(self.negatives.sum())

    def half_wins(self) -> int:
        """Pairs (positive, negative) that the positive wins, twice, plus those that tie.

        Exact below 2^62 pairs, that is two billion samples of each kind.
        """
        below = np.cumsum(self.negatives) - self.negatives
        return int((self.positives * (2 * below + self.negatives)).sum())

    def redistributed(self, comm: MPI.Intracomm) -> ScoreCounts:
        """Swap entries so that the ranks hold ascending ranges of scores. Collective."""
        offered = (
            self.score[np.linspace(0, len(self.score) - 1, _OFFERED).astype(int)]
            if len(self.score)
            else self.score
        )
        offers = np.sort(np.concatenate(comm.allgather(offered)))
        if len(offers) == 0:
            return self
        splitters = offers[np.arange(1, comm.size) * len(offers) // comm.size]
        cuts = np.searchsorted(self.score, splitters, side="left")
        columns = (np.split(c, cuts) for c in (self.score, self.positives, self.negatives))
        received = comm.alltoall(list(zip(*columns, strict=True)))
        return ScoreCounts.of(*(np.concatenate(parts) for parts in zip(*received, strict=True)))


def roc_auc(counts: ScoreCounts, comm: MPI.Intracomm | None) -> float:
    """AUC of the scores of all ranks; NaN without a positive or without a negative. Collective."""
    if comm is None or comm.size == 1:
        ranges = [(counts.half_wins(), *counts.totals)]
    else:
        counts = counts.redistributed(comm)
        ranges = comm.allgather((counts.half_wins(), *counts.totals))
    half_wins = positives = negatives = 0
    for wins_inside, positives_inside, negatives_inside in ranges:
        half_wins += wins_inside + 2 * positives_inside * negatives
        positives += positives_inside
        negatives += negatives_inside
    pairs = positives * negatives
    return half_wins / (2 * pairs) if pairs else float("nan")
