"""Numbers with units."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourfold.runtime.units import parse_bytes, show_bytes, show_seconds, write_bytes


@pytest.mark.parametrize(
    ("text", "amount"),
    [("512 B", 512), ("64GiB", 64 * 2**30), ("1.5kB", 1500), ("0.5 KiB", 512), ("2TB", 2 * 10**12)],
)
def test_parse_bytes(text: str, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "64", "GiB", "64 gib", "1e3MB", "0.1B", "1,5kB", "-1MB"])
def test_parse_bytes_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"bytes|unit"):
        parse_bytes(text)


@given(amount=st.integers(0, 2**60))
def test_written_bytes_are_exact(amount: int) -> None:
    written = write_bytes(amount)

    assert (parse_bytes(written) if isinstance(written, str) else written) == amount


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.50 KiB"),
        (2**30, "1.00 GiB"),
        (123 * 2**20, "123 MiB"),
    ],
)
def test_show_bytes(amount: int, text: str) -> None:
    assert show_bytes(amount) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.00 us"), (3.1e-5, "31.0 us"), (0.031, "31.0 ms"), (2.5, "2.50 s"), (250, "4 min 10 s")],
)
def test_show_seconds(seconds: float, text: str) -> None:
    assert show_seconds(seconds) == text
