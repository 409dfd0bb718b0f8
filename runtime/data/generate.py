"""Click logs made up with a seed, on which the best reachable AUC and log loss are known.

Traffic (traffic.py) has the published table sizes at any scale, the reuse skew of production
traces, drift, and fields that occur together; a hidden model (click_model.py) decides who clicks;
truth.py works out what the best possible model reaches. The log is in time order: training files
first, then evaluation files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from fourfold.runtime.data.click_log import Format, open_log, suffix
from fourfold.runtime.data.click_model import ClickModel, solve
from fourfold.runtime.data.kaggle import CLICK_RATE, SAMPLES, SPARSE_FIELDS, scaled_rows
from fourfold.runtime.data.reuse import LOOKUPS
from fourfold.runtime.data.traffic import BLOCK, Impressions, Traffic
from fourfold.runtime.data.truth import FILE, Truth, TruthSums, write_truth
from fourfold.runtime.errors import ConfigError

MAX_HOT = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateConfig:
    """What a generated log is like. Raises ConfigError for what cannot be."""

    # What is written.
    samples: int = 2_000_000
    """Impressions to train on."""
    eval_samples: int = 200_000
    """Impressions to evaluate on, later in time than all others."""
    format: Format = "criteo"
    """Criteo's text format, or Parquet with the same columns."""
    gzip: bool = False
    """Compress text files."""
    files: int = 1
    """Training files, equal shares in time order."""
    seed: int = 0
    """Same settings and seed: same bytes."""

    # Who sees what.
    scale: float | None = None
    """Rows of the larger tables in terms of the published ones. None keeps the published number of
    rows per sample."""
    hot: tuple[int, ...] = (1,)
    """Mean ids per bag: of every field, or of all 26. 1 is one-hot; more gives 1 to 2 * hot - 1."""
    trace: str = "2022"
    """Production trace that the reuse of ids follows: 2021 or 2022."""
    drift: float = 0.2
    """How often over the whole log every role in a field passes on to a new id, on average."""
    cooccurrence: float = 0.5
    """Chance that a field goes with the others of its user or item instead of on its own."""

    # Who clicks.
    click_rate: float = CLICK_RATE
    """Expected share of clicks."""
    strength: float = 1.3
    """Standard deviation of the true log odds; more makes clicks easier to predict."""
    pairs: float = 0.1
    """Share of the log odds' variance that only pairs of a user's and an item's ids explain."""
    integers: float = 0.25
    """Share of the log odds' variance that the integer fields explain; ids have the rest."""
    sightings: float = 4000.0
    """Ids seen this often in training have lost half of their effect's variance, rarer ones more.
    Fewer makes rare ids matter more, and the best figures harder to reach."""

    def __post_init__(self) -> None:
        _check("samples", self.samples, self.samples >= 1, "at least 1")
        _check("eval-samples", self.eval_samples, self.eval_samples >= 0, "at least 0")
        _check("files", self.files, 1 <= self.files <= self.samples, "1 to the number of samples")
        _check("format", self.format, self.format in ("criteo", "parquet"), "criteo or parquet")
        _check("gzip", self.gzip, self.format == "criteo" or not self.gzip, "only for criteo")
        _check("seed", self.seed, 0 <= self.seed < 2**63, "0 to 2^63 - 1")
        positive = self.scale is None or 0 < self.scale < float("inf")
        _check("scale", self.scale, positive, "above 0")
        fits = len(self.hot) in (1, SPARSE_FIELDS) and all(1 <= h <= MAX_HOT for h in self.hot)
        _check("hot", self.hot, fits, f"1 or {SPARSE_FIELDS} numbers from 1 to {MAX_HOT}")
        _check("trace", self.trace, self.trace in LOOKUPS, f"one of {', '.join(LOOKUPS)}")
        _check("drift", self.drift, 0 <= self.drift <= 1000, "0 to 1000")
        _check("cooccurrence", self.cooccurrence, 0 <= self.cooccurrence <= 1, "0 to 1")
        _check("click-rate", self.click_rate, 0 < self.click_rate < 1, "between 0 and 1")
        _check("strength", self.strength, 0 < self.strength <= 10, "above 0, at most 10")
        shares = min(self.pairs, self.integers, 1 - self.pairs - self.integers) >= 0
        _check("pairs, integers", (self.pairs, self.integers), shares, "shares, at most 1 in all")
        _check("sightings", self.sightings, self.sightings >= 0, "at least 0")
        largest = max(self.rows) * (1 + 3 / (1 + self.drift))
        _check("scale", self.scale, largest < 2**31, "tables below 2^31 ids, of 32 bits each")

    @property
    def rows(self) -> tuple[int, ...]:
        """Ids that C1..C26 show over a long log."""
        published = (self.samples + self.eval_samples) / SAMPLES
        return scaled_rows(published if self.scale is None else self.scale)

    @property
    def hots(self) -> tuple[int, ...]:
        """Mean ids per bag of C1..C26."""
        return self.hot * SPARSE_FIELDS if len(self.hot) == 1 else self.hot


@dataclass(frozen=True, slots=True)
class Generated:
    """What was written: the files in time order, and the best that any model can do on them."""

    train_files: tuple[str, ...]
    eval_files: tuple[str, ...]
    train: Truth
    eval: Truth


def generate(
    config: GenerateConfig,
    folder: Path,
    *,
    overwrite: bool = False,
    report: Callable[[int], None] = lambda samples: None,
) -> Generated:
    """Write logs and `truth.json` into a new folder, which appears only when it is complete.

    `overwrite` replaces a folder of generated logs, no other. `report` is told how many impressions
    are written, block by block. Memory does not grow with the log. Raises ConfigError if there is
    something in the folder already, OSError if it cannot be written.
    """
    _check_free(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        generated = _write(config, partial, report)
        if overwrite and folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return generated


def _check_free(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file: name a new folder to write logs into")
    if any(folder.iterdir()):
        if not (folder / FILE).is_file():
            raise ConfigError(f"{folder} holds other files: name a new folder to write logs into")
        if not overwrite:
            raise ConfigError(f"{folder} holds generated logs already: --overwrite replaces them")


def _write(config: GenerateConfig, folder: Path, report: Callable[[int], None]) -> Generated:
    """Write all files into an existing folder."""
    log = Log(config)
    ends = [config.samples * (i + 1) // config.files for i in range(config.files)]
    ending, digits = suffix(config.format, config.gzip), len(str(config.files - 1))
    names = [f"train-{i:0{digits}d}{ending}" for i in range(config.files)]
    spans = list(zip(names, [0, *ends[:-1]], ends, strict=True))
    splits: dict[str, tuple[list[str], Truth]] = {}
    total = config.samples + config.eval_samples
    held_out = [(f"eval{ending}", config.samples, total)] if config.eval_samples else []
    for split, parts in (("train", spans), ("eval", held_out)):
        sums = TruthSums()
        for name, start, stop in parts:
            with closing(open_log(folder / name, config.format, config.hots)) as file:
                for seen, logits, clicked in log.read(start, stop):
                    file.write(seen, clicked)
                    sums.add(logits, clicked)
                    start += seen.size
                    report(start)
        splits[split] = [name for name, _, _ in parts], sums.truth()
    settings = asdict(config) | {"rows": config.rows}
    write_truth(folder, settings, splits)
    (train, best), (held, best_held) = splits["train"], splits["eval"]
    return Generated(tuple(train), tuple(held), best, best_held)


class Log:
    """A generated log in memory: any stretch of it, without files."""

    def __init__(self, config: GenerateConfig) -> None:
        self.traffic = Traffic(
            seed=config.seed,
            total=config.samples + config.eval_samples,
            rows=config.rows,
            hot=config.hots,
            trace=config.trace,
            drift=config.drift,
            cooccurrence=config.cooccurrence,
        )
        rare = config.sightings / config.samples
        self.model = solve(
            ClickModel(seed=config.seed, rare=rare, hot=config.hots),
            self.traffic,
            strength=config.strength,
            shares=(1 - config.pairs - config.integers, config.pairs, config.integers),
            click_rate=config.click_rate,
        )

    def read(
        self, start: int, stop: int
    ) -> Iterator[tuple[Impressions, npt.NDArray[np.float64], npt.NDArray[np.bool_]]]:
        """Yield impressions [start, stop) with true log odds (n,) and labels (n,), in blocks."""
        for number in range(start // BLOCK, -(-stop // BLOCK)):
            seen = self.traffic.block(number)
            luck = self.traffic.stream("clicks", number).random(BLOCK)
            first = number * BLOCK
            low, high = max(start - first, 0), min(stop - first, BLOCK)
            seen = seen.rows(low, high)
            logits = self.model.logits(seen)
            yield seen, logits, luck[low:high] < expit(logits)


def _check(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{name}: expected {expected}, got {value}")
