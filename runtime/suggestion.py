"""What to tell a table about its rows, from what was measured of its ids.

Kraken (Xie et al., SC'20) sets a table's time to live to the 99.9th percentile of the gaps between
consecutive samples with the same id, and admits rows by lot because most ids hardly come back. A
gap longer than the sample is never seen, and of long ones only those that begin early: a percentile
beyond half of the sample is too short by an unknown amount, so it is not suggested.
"""

from __future__ import annotations

from dataclasses import dataclass

from fourfold.runtime.statistics import Setting, Statistics, TableStatistics

SAVES = 0.2
"""Share of the rows that a setting must save to be worth it."""
COLD = 0.05
"""Share of the lookups that may read a newborn row instead of a trained one for it."""
LEAST = 0.01
"""Share of the memory of all dynamic tables below which a table is not worth a setting."""
GAPS = 10_000
"""Gaps that a 99.9th percentile needs: ten of them lie beyond it."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Settings for one table, each with the reason in numbers."""

    admission: Setting
    admission_reason: str
    time_to_live: Setting | None
    time_to_live_reason: str


def suggest(statistics: Statistics, table: TableStatistics) -> Suggestion:
    """Weigh the settings that were tried."""
    always = table.settings[0]
    whole = sum(other.settings[0].row_bytes for other in statistics.tables if other.dynamic)
    if table.dynamic and always.row_bytes < LEAST * whole:
        reason = f"its rows are {always.row_bytes / whole:.1%} of the memory"
        return Suggestion(always, reason, None, reason)
    tried = [s for s in table.settings if s.kind in ("count", "probability")]
    worth = [s for s in tried if s.rows <= (1 - SAVES) * always.rows and s.cold <= COLD]
    admission = min(worth, key=lambda s: (s.rows, s.cold), default=always)
    return Suggestion(
        admission,
        _admission_reason(table, tried, admission),
        *_time_to_live(statistics, table),
    )


def _admission_reason(table: TableStatistics, tried: list[Setting], best: Setting) -> str:
    always = table.settings[0]
    if not table.dynamic:
        return "its rows are all there from the start"
    if not always.rows:
        return "no id in this sample"
    if best is not always:
        return (
            f"saves {1 - best.rows / always.rows:.0%} of {always.rows:,} rows;"
            f" {best.refused:.1%} of the lookups get no row, {best.cold:.1%} a newborn one for a"
            " trained one"
        )
    cheap = min(tried, key=lambda s: s.cold)
    return (
        f"even {cheap.kind} {cheap.value:g} saves {1 - cheap.rows / always.rows:.0%} of the rows"
        f" and makes {cheap.cold:.1%} of the lookups read a newborn row for a trained one"
    )


def _time_to_live(statistics: Statistics, table: TableStatistics) -> tuple[Setting | None, str]:
    lives = [s for s in table.settings if s.kind == "time_to_live"]
    if not lives:
        return None, "no id comes again" if table.dynamic else "its rows are all there for ever"
    live, rows = lives[-1], table.settings[0].rows
    if table.gaps < GAPS:
        return None, f"{table.gaps:,} gaps are too few for their 99.9th percentile"
    if 2 * live.value > statistics.batches:
        return None, (
            f"the sample is too short: 99.9% of the gaps in it are up to {live.value:g} of its"
            f" {statistics.batches} batches"
        )
    if live.rows > (1 - SAVES) * rows:
        return None, (
            f"{live.value:g} would save {1 - live.rows / rows:.0%} of the rows of this sample"
        )
    return live, (
        f"99.9% of the gaps; {live.rows:,} of {rows:,} rows live at a time,"
        f" {live.cold:.2%} of the lookups find theirs expired"
    )
