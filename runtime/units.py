"""Numbers with units: how people write them in a job, and how the console shows them."""

import re

_BYTES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "KiB": 2**10,
    "MB": 10**6,
    "MiB": 2**20,
    "GB": 10**9,
    "GiB": 2**30,
    "TB": 10**12,
    "TiB": 2**40,
}
_NUMBER_AND_UNIT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)")


def parse_bytes(text: str) -> int:
    """Read a number of bytes with its unit: "64GiB", "1.5 GB", "512 B".

    Raises ValueError for anything else, also for a fraction of a byte.
    """
    match = _NUMBER_AND_UNIT.fullmatch(text.strip())
    if not match or match[2] not in _BYTES:
        raise ValueError(f"expected a number with a unit of {', '.join(_BYTES)}, got {text!r}")
    whole, _, fraction = match[1].partition(".")
    scale = int(10 ** len(fraction))
    scaled = int(whole + fraction) * _BYTES[match[2]]
    if scaled % scale:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return scaled // scale


def write_bytes(amount: int) -> str | int:
    """Write a number of bytes so that `parse_bytes` reads it back exactly, short where it can."""
    for unit in ("TiB", "GiB", "MiB"):
        if amount and amount % _BYTES[unit] == 0:
            return f"{amount // _BYTES[unit]}{unit}"
    return amount


def show_bytes(amount: float) -> str:
    """Show a number of bytes with three digits: "1.50 GiB"."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if abs(amount) >= _BYTES[unit]:
            return f"{_three_digits(amount / _BYTES[unit])} {unit}"
    return f"{amount:.0f} B"


def show_seconds(seconds: float) -> str:
    """Show a time with three digits: "31.0 ms", "2.50 s", "4 min 10 s"."""
    if abs(seconds) >= 120:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s"
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if abs(seconds) >= scale:
            return f"{_three_digits(seconds / scale)} {unit}"
    return f"{_three_digits(seconds * 1e6)} us"


def _three_digits(value: float) -> str:
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f}"
