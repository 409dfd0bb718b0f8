"""What a run left in its `metrics.jsonl`: figures over steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourfold.runtime.errors import DataError
from fourfold.runtime.population import FIGURES


@dataclass(frozen=True, slots=True)
class Series:
    """A figure over the steps at which it was reported."""

    steps: NDArray[np.int64]
    """(N,), as reported."""
    values: NDArray[np.float64]
    """(N,)"""

    def __len__(self) -> int:
        return len(self.steps)


class History:
    """The lines of a `metrics.jsonl`, in order.

    lines: the objects of its lines, with their numbers from 1 on.
    """

    def __init__(self, path: Path, lines: Mapping[int, Mapping[str, Any]]) -> None:
        self._path = path
        self._lines = lines

    @classmethod
    def load(cls, folder: Path) -> History:
        """Read the run folder. An unfinished last line, of a run that goes on, does not count.

        Raises DataError for a folder without metrics, and for a broken line, which it names.
        """
        path = folder / "metrics.jsonl"
        try:
            text = path.read_bytes().decode()
        except FileNotFoundError:
            what = "has no metrics.jsonl" if folder.is_dir() else "does not exist"
            raise DataError(f"{folder} {what}: expected the folder of a run") from None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not text: {error}") from error
        lines, unfinished = text.split("\n"), not text.endswith("\n")
        parsed = {
            number: _parse(f"{path}:{number}", line)
            for number, line in enumerate(lines[:-1], start=1)
        }
        if unfinished and lines[-1].endswith("}"):
            parsed[len(lines)] = _parse(f"{path}:{len(lines)}", lines[-1])
        if not parsed:
            raise DataError(f"{path} has no lines: the run reported nothing yet (train.log_every)")
        return cls(path, parsed)

    def series(self, name: str) -> Series:
        """Give the figure of that name, where it was reported; empty if it never was.

        Raises DataError for one that is no number.
        """
        found = [
            (line["step"], self._number(number, name, line[name]))
            for number, line in self._lines.items()
            if name in line
        ]
        return _series(found)

    def population(self, figure: str) -> dict[str, Series]:
        """Give `rows`, or another figure of `TablePopulation`, of every table; {} without any."""
        found: dict[str, list[tuple[int, float]]] = {}
        for number, line in self._lines.items():
            for table, counts in self._tables(number, line).items():
                value = self._number(number, f"population.{table}.{figure}", counts[figure])
                found.setdefault(table, []).append((line["step"], value))
        return {table: _series(pairs) for table, pairs in found.items()}

    def _tables(self, number: int, line: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
        tables = line.get("population", {})
        whole = isinstance(tables, dict) and all(
            isinstance(counts, dict) and counts.keys() >= set(FIGURES) for counts in tables.values()
        )
        if not whole:
            raise DataError(
                f"{self._path}:{number}: population: expected {', '.join(FIGURES)} of every table,"
                f" got {json.dumps(tables)[:100]}"
            )
        return tables  # type: ignore[no-any-return]

    def _number(self, number: int, name: str, value: Any) -> float:
        if isinstance(value, str) and value in ("nan", "inf", "-inf"):  # JSON has none
            return float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError(f"{self._path}:{number}: {name}: expected a number, got {value!r}")
        return float(value)


def _parse(where: str, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
    step = value.get("step") if isinstance(value, dict) else None
    if not isinstance(step, int) or isinstance(step, bool):
        raise DataError(f"{where}: expected an object with a step, got {line[:100]}")
    return value  # type: ignore[no-any-return]


def _series(pairs: list[tuple[int, float]]) -> Series:
    steps, values = zip(*pairs, strict=True) if pairs else ((), ())
    return Series(np.array(steps, np.int64), np.array(values, np.float64))
