"""Generated logs on disk, made once, mapped by every trial: plain NumPy files and what was counted.

FOLDER/clicks-SAMPLES-SEED-DIGEST/{ids,dense,label,logit}.npy, log.json
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

from fourfold.jobs.study import clicks
from fourfold.jobs.study.clicks import CLOSED, EFFECTS, Clicks, generate_clicks
from fourfold.jobs.study.memory import TableUse
from fourfold.runtime.data.batch import Int64
from fourfold.runtime.data.truth import Truth, TruthSums

_ARRAYS = ("ids", "dense", "label", "logit")
_FACTS = "log.json"
GAP_QUANTILE = 0.999


@dataclass(frozen=True, slots=True)
class StudyLog:
    """A log and what was counted over all of it, table by table."""

    clicks: Clicks
    tables: list[TableUse]
    gaps: list[int]
    """Impressions between two lookups of an id: the 99.9th percentile of each table."""

    @property
    def distinct(self) -> int:
        """Ids of all tables together."""
        return sum(table.distinct for table in self.tables)

    def truth(self, scored: float) -> Truth:
        """Give the best that a model which knew every effect would reach on the last part."""
        span = slice(round((1 - scored) * self.clicks.size), None)
        sums = TruthSums()
        sums.add(self.clicks.logit[span].astype(np.float64), self.clicks.label[span] == 1)
        return sums.truth()


@cache
def generator_digest() -> str:
    """Name the generator: another text of it makes other logs."""
    return hashlib.sha256(Path(clicks.__file__).read_bytes()).hexdigest()[:12]


def make_log(folder: Path, samples: int, seed: int) -> StudyLog:
    """Open a log, or generate it first; it appears only when it is complete."""
    path = _path(folder, samples, seed)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = Path(mkdtemp(".partial", f".{path.name}.", folder))
        try:
            clicks = generate_clicks(samples, seed)
            for name in _ARRAYS:
                np.save(partial / f"{name}.npy", getattr(clicks, name))
            (partial / _FACTS).write_text(json.dumps(_count(clicks), indent=1) + "\n")
            _publish(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return open_log(folder, samples, seed)


def _publish(partial: Path, path: Path) -> None:
    """Give a finished folder its name, unless another study was quicker."""
    try:
        partial.rename(path)
    except OSError:
        if not path.is_dir():
            raise


def open_log(folder: Path, samples: int, seed: int) -> StudyLog:
    """Open a log that was generated. Its arrays stay on disk until they are read."""
    path = _path(folder, samples, seed)
    arrays = {name: np.load(path / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
    facts: dict[str, Any] = json.loads((path / _FACTS).read_text())
    return StudyLog(Clicks(**arrays), [TableUse(**use) for use in facts["tables"]], facts["gaps"])


def _path(folder: Path, samples: int, seed: int) -> Path:
    return folder / f"clicks-{samples}-{seed}-{generator_digest()}"


def _count(clicks: Clicks) -> dict[str, Any]:
    """Count what each table is asked for."""
    tables, gaps = [], []
    for name, ids in zip(EFFECTS, clicks.ids, strict=True):
        seen = np.unique(ids, return_counts=True)[1]
        use = TableUse(len(seen), len(ids), int((seen > 1).sum()), CLOSED.get(name, 0))
        tables.append(asdict(use))
        gaps.append(gap_quantile(ids))
    return {"tables": tables, "gaps": gaps}


def gap_quantile(ids: Int64, quantile: float = GAP_QUANTILE) -> int:
    """Give a quantile of the distances between two neighbouring lookups of an id; 0 without any."""
    order = np.argsort(ids, kind="stable")
    gaps = np.diff(order)[ids[order[1:]] == ids[order[:-1]]]
    return int(np.quantile(gaps, quantile)) if len(gaps) else 0
