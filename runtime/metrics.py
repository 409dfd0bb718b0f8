"""Metrics of predicted clicks: gathered batch by batch, merged over ranks."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, nan
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fourfold.runtime.auc import ScoreCounts, roc_auc
from fourfold.runtime.errors import DataError

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True, slots=True)
class Metrics:
    """How good predictions are. A figure that does not exist is NaN, and `undefined` says why."""

    auc: float
    """Chance that a click is scored above a non-click; exact, ties count half."""
    log_loss: float
    """Mean of -log(probability given to what happened), in nats."""
    normalized_entropy: float
    """Log loss over the entropy of the mean label (He et al. 2014): 1 is no better than always
    predicting the mean."""
    calibration: float
    """Mean prediction over mean label: above 1 promises too many clicks."""
    samples: int
    positives: int
    undefined: str = ""


class Evaluation:
    """Gathers predictions: `add` batch after batch, then `merge` once on all ranks, then `result`.

    Holds 5 bytes a sample until merged, and the exact AUC needs no more than a sort of them.
    """

    def __init__(self) -> None:
        self._logits: list[npt.NDArray[np.float32]] = []
        self._labels: list[npt.NDArray[np.bool_]] = []
        self._loss = 0.0
        self._predicted = 0.0
        self._merged: Metrics | None = None

    def add(self, logits: npt.ArrayLike, labels: npt.ArrayLike) -> None:
        """Take predictions as log odds (B,) and labels 0 or 1 (B,); B may be 0.

        Infinite log odds are certainty. Raises DataError for NaN or for other labels, and
        ValueError for shapes that disagree.
        """
        if self._merged is not None:
            raise ValueError("this evaluation has been merged: start a new one")
        x = np.array(logits, dtype=np.float32)
        y = np.asarray(labels)
        if x.ndim != 1 or x.shape != y.shape:
            raise ValueError(f"logits {x.shape} and labels {y.shape}: expected one of each, (B,)")
        if bad := int(np.isnan(x).sum()):
            raise DataError(
                f"{bad} of {len(x)} predictions are NaN: training diverged, try a lower lr"
            )
        if bad := int(((y != 0) & (y != 1)).sum()):
            raise DataError(f"{bad} of {len(y)} labels are neither 0 nor 1")
        clicked = y == 1
        wide = x.astype(np.float64)
        self._loss += float(np.logaddexp(0, np.where(clicked, -wide, wide)).sum())
        self._predicted += float(np.exp(-np.logaddexp(0, -wide)).sum())
        self._logits.append(x)
        self._labels.append(clicked)

    def add_probabilities(self, probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> None:
        """Take predictions as probabilities (B,); like `add` otherwise."""
        p = np.asarray(probabilities, dtype=np.float64)
        if bad := int(((p < 0) | (p > 1)).sum()):
            raise DataError(f"{bad} of {p.size} predictions are not probabilities in [0, 1]")
        with np.errstate(divide="ignore"):
            self.add(np.log(p) - np.log1p(-p), labels)

    def merge(self, comm: MPI.Intracomm | None) -> None:
        """Put together what all ranks added; None for this rank alone. Collective."""
        logits = np.concatenate([np.empty(0, np.float32), *self._logits])
        clicked = np.concatenate([np.empty(0, np.bool_), *self._labels]).astype(np.int64)
        self._logits, self._labels = [], []
        auc = roc_auc(ScoreCounts.of(logits, clicked, 1 - clicked), comm)
        sums = np.array([self._loss, self._predicted, len(clicked), clicked.sum()])
        if comm is not None:  # in rank order, which repeats; MPI's own sums need not
            sums = np.sum(comm.allgather(sums), axis=0)
        loss, predicted, samples, positives = sums.tolist()
        self._merged = _metrics(auc, loss, predicted, int(samples), int(positives))

    def result(self) -> Metrics:
        """Metrics of all that was merged; of this rank alone if nothing was."""
        if self._merged is None:
            self.merge(None)
        assert self._merged is not None
        return self._merged


def entropy(rate: float) -> float:
    """Entropy of a coin that comes up with this rate, in nats."""
    return -sum(p * log(p) for p in (rate, 1 - rate) if p > 0)


def _metrics(auc: float, loss: float, predicted: float, samples: int, positives: int) -> Metrics:
    if samples == 0:
        return Metrics(nan, nan, nan, nan, 0, 0, "there were no samples")
    mean = positives / samples
    base = entropy(mean)
    undefined = ""
    if positives == 0:
        undefined = "no sample was positive"
    elif positives == samples:
        undefined = "no sample was negative"
    return Metrics(
        auc=auc,
        log_loss=loss / samples,
        normalized_entropy=loss / samples / base if base else nan,
        calibration=predicted / positives if positives else nan,
        samples=samples,
        positives=positives,
        undefined=undefined,
    )
