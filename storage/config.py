"""The [storage] section of a job."""

import re
from dataclasses import dataclass
from typing import Literal

_UNITS = {"": 1, "B": 1} | {
    f"{prefix}{unit}": base ** (exponent + 1)
    for exponent, prefix in enumerate("KMGT")
    for unit, base in (("iB", 1024), ("B", 1000))
}


def parse_bytes(text: str) -> int:
    """Read a number of bytes such as "64GiB", "1.5 TB" or "4096"."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    units = {unit.lower(): factor for unit, factor in _UNITS.items()}
    if match is None or match[2].lower() not in units:
        raise ValueError(f"not a number of bytes: {text!r} (write it like 4096, 512MiB or 64GiB)")
    return int(float(match[1]) * units[match[2].lower()])


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageConfig:
    """Memory for rows, in up to three tiers: pad, host, file.

    What is left out decides how many. Without `pad_bytes` there is one: training works on all rows
    where they lie. With it, training works on the pad, and rows that it does not need soon wait in
    host memory; with `file_bytes` too, those that find no room there wait in a file. All bytes are
    those of one rank: a number, or text such as "64GiB".
    """

    # How much, of what. It changes the speed only.
    pad_bytes: int | str | None = None
    """Most bytes of the pad, the memory that training reads and writes. None: one tier."""
    host_bytes: int | str | None = None
    """Most bytes of host memory that rows may take besides the pad, with their indexes, and with
    what is kept beside the pad of a GPU. None: no limit."""
    file_bytes: int | str | None = None
    """Most bytes of the file. None: no file. Needs `pad_bytes` and `host_bytes`."""
    folder: str = ""
    """Where the ranks' files lie (`rank-0003.h5`). Default: `rows/` in the run folder."""
    foresight: int = 32
    """Batches routed beyond those of `train.lookahead`, so that rows which they need leave the pad
    last. Their ids take memory. No use with one tier."""
    fixed_lookahead: bool = False
    """Refuse to train if the pad cannot hold the rows of `train.lookahead` + 1 batches. Otherwise
    each rank plans as far ahead as its pad has room."""

    # How.
    huge_pages: bool = True
    """Ask the system for 2 MiB pages: memory comes seven times faster at first touch, and random
    rows cost fewer address translations."""
    io: Literal["auto", "uring", "threads"] = "auto"
    """How the file is read and written: io_uring, or threads that block; "auto" takes io_uring
    where the system has it."""
    direct: bool = True
    """Keep the file out of the system's page cache, so that rows take no memory but the tiers'."""
    io_depth: int = 64
    """Reads and writes under way at once."""

    def __post_init__(self) -> None:
        for name in ("pad_bytes", "host_bytes", "file_bytes"):
            amount = self._amount(name)
            if amount is not None and amount <= 0:
                raise ValueError(f"storage.{name} must be above 0, got {getattr(self, name)!r}")
        if self.file_bytes is not None:
            missing = [n for n in ("pad_bytes", "host_bytes") if getattr(self, n) is None]
            if missing:
                raise ValueError(
                    f"storage.file_bytes needs {' and '.join(missing)} too: a file is the third"
                    " tier, below a pad and host memory with limits"
                )
        for name, needed in (("folder", "file_bytes"), ("fixed_lookahead", "pad_bytes")):
            if getattr(self, name) and getattr(self, needed) is None:
                raise ValueError(f"storage.{name} has no use without storage.{needed}")
        if self.foresight < 0:
            raise ValueError(f"storage.foresight must be at least 0, got {self.foresight}")
        if self.io_depth < 1:
            raise ValueError(f"storage.io_depth must be at least 1, got {self.io_depth}")

    @property
    def tiers(self) -> tuple[str, ...]:
        """Names of the tiers, fastest first. One tier is host memory."""
        if self.pad_bytes is None:
            return ("host",)
        return ("pad", "host") if self.file_bytes is None else ("pad", "host", "file")

    @property
    def pad_budget(self) -> int | None:
        """Bytes that the pad may take; `host_bytes` where it is the only tier. None: no limit."""
        return self._amount("host_bytes" if self.pad_bytes is None else "pad_bytes")

    @property
    def host_budget(self) -> int | None:
        """`host_bytes` as a number."""
        return self._amount("host_bytes")

    @property
    def file_budget(self) -> int | None:
        """`file_bytes` as a number."""
        return self._amount("file_bytes")

    @property
    def budget_bytes(self) -> int | None:
        """Bytes of all tiers together. None: no limit."""
        amounts = [self._amount(f"{tier}_bytes") for tier in self.tiers]
        known = [amount for amount in amounts if amount is not None]
        return sum(known) if len(known) == len(amounts) else None

    def _amount(self, name: str) -> int | None:
        value: int | str | None = getattr(self, name)
        if not isinstance(value, str):
            return value
        try:
            return parse_bytes(value)
        except ValueError as error:
            raise ValueError(f"storage.{name}: {error}") from None
