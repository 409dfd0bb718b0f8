"""What the best possible model reaches on generated logs, and the file beside them that says it.

A generated label is drawn with a known probability p. Nothing a model can see says more about the
label than p does, so p itself is the best prediction. Of n impressions its expected log loss is the
mean entropy of p, and its expected AUC, to O(1/n), is the mass of pairs that it ranks right over
the mass of all pairs:

    sum_{i != j} p_i (1 - p_j) [p_i > p_j, or a half if equal] / sum_{i != j} p_i (1 - p_j)

The pairs are counted in 2^20 bins of the log odds, each 6e-5 wide: off by less than 1e-6.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fourfold.runtime.data.config import DataConfig
from fourfold.runtime.data.files import find_files
from fourfold.runtime.errors import DataError
from fourfold.runtime.metrics import entropy

FILE = "truth.json"
_FORMAT = "fourfold truth 1"  # stored in files: change it with their meaning

_BINS = 2**20
_REACH = 32.0  # log odds beyond this are one bin


@dataclass(frozen=True, slots=True)
class Truth:
    """The best that any model can do on one split of generated logs."""

    samples: int
    clicks: int
    click_rate: float
    """Expected share of clicks."""
    entropy: float
    """Log loss of predicting the click rate for everybody, in nats."""
    auc: float
    """Expected AUC of the true probabilities."""
    log_loss: float
    """Expected log loss of the true probabilities, in nats."""
    normalized_entropy: float
    """`log_loss` over `entropy`."""
    drawn_auc: float
    """AUC of the true probabilities on the labels that were drawn. Luck moves it, and the AUC of
    any model on these labels with it, so compare a model with this one."""
    drawn_log_loss: float
    """Log loss of the true probabilities on the labels that were drawn."""


class TruthSums:
    """Gathers true probabilities and drawn labels, block by block, in bounded memory."""

    def __init__(self) -> None:
        self._mass = np.zeros((2, _BINS))  # of clicks and of non-clicks, expected
        self._drawn = np.zeros((2, _BINS))
        self._both = self._entropy = self._drawn_loss = 0.0

    def add(self, logits: npt.NDArray[np.float64], clicked: npt.NDArray[np.bool_]) -> None:
        """Take true log odds (n,) and drawn labels (n,)."""
        loss = np.logaddexp(0, np.stack([-logits, logits]))  # of a click, of a non-click
        chance = np.exp(-loss)
        share = (logits + _REACH) * (_BINS / (2 * _REACH))
        where = np.clip(share.astype(np.int64), 0, _BINS - 1)
        for outcome in (0, 1):
            np.add.at(self._mass[outcome], where, chance[outcome])
            np.add.at(self._drawn[outcome], where[clicked != bool(outcome)], 1.0)
        self._both += float((chance[0] * chance[1]).sum())
        self._entropy += float((chance * loss).sum())
        self._drawn_loss += float(np.where(clicked, loss[0], loss[1]).sum())

    def truth(self) -> Truth:
        """Give the figures of all that was added; NaN where there is none."""
        samples, clicks = int(self._drawn.sum()), int(self._drawn[0].sum())
        count = samples or float("nan")
        rate = float(self._mass[0].sum()) / count
        log_loss = self._entropy / count
        base = entropy(rate)
        return Truth(
            samples=samples,
            clicks=clicks,
            click_rate=rate,
            entropy=base,
            auc=_auc(self._mass, itself=self._both),
            log_loss=log_loss,
            normalized_entropy=log_loss / base if base else float("nan"),
            drawn_auc=_auc(self._drawn),
            drawn_log_loss=self._drawn_loss / count,
        )


def write_truth(
    folder: Path, settings: Mapping[str, object], splits: Mapping[str, tuple[list[str], Truth]]
) -> None:
    """Write `truth.json`: how the logs were made, and files and best figures of every split.

    A figure that does not exist (the AUC of clicks only, say) is null.
    """
    described = {}
    for name, (files, truth) in splits.items():
        figures = {key: None if isnan(value) else value for key, value in asdict(truth).items()}
        described[name] = {"files": files, **figures}
    content = {"format": _FORMAT, "settings": dict(settings), "splits": described}
    (folder / FILE).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def find_truth(config: DataConfig) -> Truth | None:
    """Give the best that is possible on a job's held-out files; None if nobody knows.

    It is known when `eval_paths` are the evaluation files of one generated log, all of them. Raises
    DataError if a `truth.json` lies beside them but cannot be read.
    """
    if not config.eval_paths:
        return None
    files = find_files(config.eval_paths, "data.eval_paths")
    path = files[0].parent / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        if content["format"] != _FORMAT:
            return None
        split = content["splits"]["eval"]
        figures: dict[str, Any] = {field.name: split[field.name] for field in fields(Truth)}
        figures |= {name: nan for name, value in figures.items() if value is None}
        truth = Truth(**figures)
        known = {path.parent / name for name in split["files"]}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not as `fourfold generate` writes it ({error!r}); generate the logs anew, or "
            f"remove the file"
        ) from error
    return truth if set(files) == known else None


def _auc(bins: npt.NDArray[np.float64], itself: float = 0.0) -> float:
    """AUC of clicks and non-clicks in ascending bins (2, n); `itself` of their pairs are none."""
    positives, negatives = bins
    below = np.cumsum(negatives) - negatives
    wins = float(positives @ (below + negatives / 2)) - itself / 2
    pairs = float(positives.sum() * negatives.sum()) - itself
    return wins / pairs if pairs > 0 else float("nan")
