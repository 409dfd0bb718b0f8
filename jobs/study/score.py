"""Progressive validation: every sample is scored before it trains, and counts once.

The logits of a training batch are computed with the rows and weights of before its update, so they
are predictions of clicks that the model has not seen (Blum, Kalai, Langford, COLT 1999). A loss
sees them; this one keeps them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from fourfold.runtime.metrics import Evaluation, Metrics


class ProgressiveLoss:
    """Binary cross entropy that remembers what was predicted; the `loss` of a trainer."""

    def __init__(self) -> None:
        self._logits: list[npt.NDArray[np.float32]] = []
        self._labels: list[npt.NDArray[np.float32]] = []

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Give the mean loss of one batch."""
        self._logits.append(logits.detach().to(torch.float32, copy=True).numpy())
        self._labels.append(labels.numpy())
        return functional.binary_cross_entropy_with_logits(logits, labels)

    def metrics(self, first: float = 0.0, last: float = 1.0) -> Metrics:
        """Score a stretch of the stream, given as shares of what was seen."""
        logits, labels = np.concatenate(self._logits), np.concatenate(self._labels)
        span = slice(round(first * len(labels)), round(last * len(labels)))
        evaluation = Evaluation()
        evaluation.add(logits[span], labels[span])
        return evaluation.result()

    def curve(self, parts: int = 10) -> list[float]:
        """AUC of each of `parts` equal stretches."""
        return [self.metrics(i / parts, (i + 1) / parts).auc for i in range(parts)]
