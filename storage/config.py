"""The [storage] section of a job."""

import re
from dataclasses import dataclass

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
    """Memory for rows."""

    host_bytes: int | str | None = None
    """Most bytes of DRAM that the rows of one rank may take, with their indexes: a number of bytes,
    or text such as "64GiB". None: no limit."""
    huge_pages: bool = True
    """Ask the system for 2 MiB pages: memory comes seven times faster at first touch, and random
    rows cost fewer address translations."""

    def __post_init__(self) -> None:
        budget = self.budget_bytes
        if budget is not None and budget <= 0:
            raise ValueError(f"storage.host_bytes must be above 0, got {self.host_bytes!r}")

    @property
    def budget_bytes(self) -> int | None:
        """`host_bytes` as a number."""
        if isinstance(self.host_bytes, str):
            try:
                return parse_bytes(self.host_bytes)
            except ValueError as error:
                raise ValueError(f"storage.host_bytes: {error}") from None
        return self.host_bytes
