"""The console of a run: fixed columns, units by the key's suffix, no dependency."""

import logging
import os
from collections.abc import Mapping
from typing import TextIO

from fourfold.runtime.units import show_bytes, show_seconds

Value = float | int | str | bool | None


def may_color(stream: TextIO, environ: Mapping[str, str], world_size: int = 1) -> bool:
    """Say whether `stream` wants colours: a terminal, and NO_COLOR unset.

    Some launchers give every rank a terminal of its own whatever reads the other end, so that in a
    world of several ranks a terminal proves nothing.
    """
    if environ.get("NO_COLOR"):
        return False
    return bool(environ.get("FORCE_COLOR")) or (world_size == 1 and stream.isatty())


class Console:
    """What a person watches. Every line goes through the run's log, so that it is kept as well."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._widths: dict[str, int] = {}

    def title(self, text: str) -> None:
        """Print a headline."""
        self._log.info(text, extra={"headline": True})

    def line(self, text: str) -> None:
        """Print a line."""
        self._log.info(text)

    def row(self, **values: Value) -> None:
        """Print one row of figures. A column keeps its width from row to row.

        The end of a key gives the unit, as in `metrics.jsonl`: `loss=0.4512, step_s=0.031,
        samples_per_s=131072.0` prints `loss 0.4512  step 31.0 ms  131,072 samples/s`.
        """
        self._log.info("  ".join(self._cell(key, value) for key, value in values.items()))

    def _cell(self, key: str, value: Value) -> str:
        name, text, unit = _show(key, value)
        width = max(self._widths.get(key, 6), len(text))
        self._widths[key] = width
        return " ".join(filter(None, (name, f"{text:>{width}}", unit)))


def _show(key: str, value: Value) -> tuple[str, str, str]:
    """Return name, text and unit of one figure."""
    label = key.replace("_", " ")
    if isinstance(value, str | bool) or value is None:
        return label, "-" if value is None else str(value), ""
    if key.endswith("_per_s"):
        return "", f"{value:,.0f}", f"{label.removesuffix(' per s')}/s"
    if key.endswith("_bytes"):
        return label.removesuffix(" bytes"), show_bytes(value), ""
    if key.endswith("_s"):
        return label.removesuffix(" s"), show_seconds(value), ""
    return label, f"{value:,}" if isinstance(value, int) else f"{value:.4f}", ""


class ConsoleHandler(logging.StreamHandler[TextIO]):
    """Shows the log to a person: rank 0 from INFO on, other ranks warnings with their name."""

    def __init__(self, stream: TextIO, rank: int, world_size: int) -> None:
        super().__init__(stream)
        self._prefix = f"[rank {rank}/{world_size}] " if world_size > 1 else ""
        self._color = may_color(stream, os.environ, world_size)
        self.setLevel(logging.INFO if rank == 0 else logging.WARNING)

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave out what only the rank's file shall keep."""
        return not getattr(record, "file_only", False)

    def format(self, record: logging.LogRecord) -> str:
        """Return what is shown of one record; tracebacks are for the rank's file only."""
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            return f"{self._prefix}{record.levelname.lower()}: {text}"
        if getattr(record, "headline", False) and self._color:
            return f"\033[1m{text}\033[0m"
        return text
