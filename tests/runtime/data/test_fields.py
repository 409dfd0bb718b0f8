"""Numbers from text, against Python's own."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fourfold.runtime.data.fields import (
    MAX_DIGITS,
    padded,
    parse_decimal,
    parse_hex8,
    split_fields,
)

texts = st.text(st.sampled_from("0123456789-+ xaFg:/@`\0\xff"), max_size=20)


def spans(fields: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    buffer = padded(b"".join(field + b"\t" for field in fields))
    lengths = np.array([len(field) for field in fields], np.int64)
    ends = 16 + np.cumsum(lengths + 1) - 1
    return buffer, ends - lengths, ends


def decimal(field: bytes) -> int | None:
    digits = field.removeprefix(b"-")
    if not field:
        return 0
    return int(field) if digits.isdigit() and len(digits) <= MAX_DIGITS else None


@given(st.lists(texts | st.integers(-(10**17), 10**17).map(str), min_size=1, max_size=30))
def test_decimal(fields: list[str]):
    data = [field.encode("latin-1") for field in fields]
    values, bad = parse_decimal(*spans(data))

    assert bad.tolist() == [decimal(field) is None for field in data]
    assert values[~bad].tolist() == [v for v in map(decimal, data) if v is not None]


@given(
    st.lists(texts | st.integers(0, 2**32 - 1).map("{:08x}".format), min_size=1, max_size=30),
    st.booleans(),
)
def test_hex(fields: list[str], upper: bool):
    data = [field.encode("latin-1") for field in fields]
    data = [field.upper() for field in data] if upper else data

    def value(field: bytes) -> int | None:
        if not field:
            return 0
        digits = set(b"0123456789abcdefABCDEF")
        return int(field, 16) if len(field) == 8 and set(field) <= digits else None

    values, bad = parse_hex8(*spans(data))

    assert bad.tolist() == [value(field) is None for field in data]
    assert values[~bad].tolist() == [v for v in map(value, data) if v is not None]


@given(st.lists(st.text(st.sampled_from("ab,"), max_size=6), min_size=1, max_size=10))
def test_split(fields: list[str]):
    buffer, starts, ends = spans([field.encode() for field in fields])
    first, last, lengths = split_fields(starts, ends, np.flatnonzero(buffer == ord(",")))
    values = [buffer[a:b].tobytes().decode() for a, b in zip(first, last, strict=True)]

    assert values == [value for field in fields for value in field.split(",")]
    assert lengths.tolist() == [field.count(",") + 1 for field in fields]
