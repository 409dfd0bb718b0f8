"""What moved between the tiers, and what the threads that moved it did."""

from __future__ import annotations

from dataclasses import astuple, dataclass


@dataclass(frozen=True, slots=True)
class Traffic:
    """Rows and bytes that plans moved, of one rank."""

    pad_hits: float = 0
    """Ids of training batches whose row was in the pad."""
    host_hits: float = 0
    """Rows that came from the host tier,"""
    file_hits: float = 0
    """from the file tier,"""
    born: float = 0
    """or did not exist before."""
    host_read_bytes: float = 0
    host_written_bytes: float = 0
    file_read_bytes: float = 0
    file_written_bytes: float = 0
    fetch_s: float = 0
    """Seconds that the thread was busy which moves rows between the tiers,"""
    write_s: float = 0
    """and the one that writes them to the file."""

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class Span:
    """What a thread did, from when to when, on the clock of `time.perf_counter_ns`."""

    thread: str
    name: str
    begin_ns: int
    end_ns: int
    rows: int
