"""A rank's trace: what each of its threads did, and when; for ui.perfetto.dev or chrome://tracing.

    trace/rank-0003.json    in the run folder; Chrome's trace event format

One row per thread, one span per piece of work, with the number of its batch. Times are those of the
node's monotonic clock, so that the files of ranks on one node can be laid over each other.
"""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import NamedTuple

MOST_SPANS = 200_000
"""Spans that a trace keeps, about 30 MB of memory: the last ones."""

ROWS = ("step", "read", "route", "plan", "fetch", "write")
"""Rows in the order in which they are shown; others come below."""


class Span(NamedTuple):
    """One piece of work."""

    row: str
    """Thread that did it."""
    name: str
    begin_ns: int
    """On the clock of `time.perf_counter_ns`."""
    end_ns: int
    batch: int | None = None
    """Number of the batch, from 1."""
    rows: int | None = None
    """Rows moved."""


class Trace:
    """Collects spans from any thread, a bounded number of them; `save` writes them.

    rank: names the process in the file. most: spans kept; older ones make room for newer ones.
    """

    def __init__(self, rank: int = 0, *, most: int = MOST_SPANS) -> None:
        self._rank = rank
        self._spans: deque[Span] = deque(maxlen=most)
        self._added = 0

    def add(self, span: Span) -> None:
        """Keep a span. Spans of one row nest or follow each other."""
        self._spans.append(span)
        self._added += 1

    @property
    def spans(self) -> list[Span]:
        """What is kept, as it was added."""
        return list(self._spans)

    def save(self, path: Path) -> None:
        """Write what is kept. No thread may add at the same time. Raises OSError."""
        spans = sorted(self._spans, key=lambda span: (span.begin_ns, -span.end_ns))
        found = {span.row for span in spans}
        rows = [row for row in ROWS if row in found] + sorted(found.difference(ROWS))
        content = {
            "displayTimeUnit": "ms",
            "otherData": {"rank": self._rank, "spans_dropped": self._added - len(spans)},
            "traceEvents": [
                *self._names(rows),
                *(self._event(span, 1 + rows.index(span.row)) for span in spans),
            ],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")

    def _names(self, rows: list[str]) -> list[dict[str, object]]:
        events = [self._meta("process_name", 0, name=f"rank {self._rank}")]
        for number, row in enumerate(rows, 1):
            events.append(self._meta("thread_name", number, name=row))
            events.append(self._meta("thread_sort_index", number, sort_index=number))
        return events

    def _meta(self, kind: str, thread: int, **values: object) -> dict[str, object]:
        return {"ph": "M", "name": kind, "pid": self._rank, "tid": thread, "args": values}

    def _event(self, span: Span, thread: int) -> dict[str, object]:
        values = {"batch": span.batch, "rows": span.rows}
        return {
            "ph": "X",
            "name": span.name,
            "pid": self._rank,
            "tid": thread,
            "ts": span.begin_ns / 1000,
            "dur": (span.end_ns - span.begin_ns) / 1000,
            "args": {name: value for name, value in values.items() if value is not None},
        }
