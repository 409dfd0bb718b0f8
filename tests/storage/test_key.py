"""Size-aware key coding."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourfold.storage import KeyCode, collision_odds, collision_text

tables = st.lists(st.one_of(st.none(), st.integers(0, 2**50)), min_size=1, max_size=60)


@given(tables)
def test_ranges_are_disjoint_aligned_and_large_enough(rows: list[int | None]) -> None:
    code = KeyCode.of(rows)
    spans = sorted((base, base + 2**bits) for base, bits in zip(code.base, code.bits, strict=True))

    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert spans[-1][1] <= 2**64
    for n, base, bits in zip(rows, code.base, code.bits, strict=True):
        assert base % 2**bits == 0
        assert bits >= 52 if n is None else 2**bits >= n


@given(tables, st.data())
def test_a_key_tells_table_and_id(rows: list[int | None], data: st.DataObject) -> None:
    code = KeyCode.of(rows)
    table = data.draw(st.integers(0, len(rows) - 1))
    id = data.draw(st.integers(0, 2 ** code.bits[table] - 1))
    assert code.table_and_id(code.key(table, id)) == (table, id)


def test_big_tables_have_short_codes() -> None:
    code = KeyCode.of([10, 1_000_000, None])
    assert code.bits == (4, 20, 63)


def test_an_id_that_does_not_fit_is_an_error() -> None:
    code = KeyCode.of([10, None, None])
    assert code.bits[1] == 62
    with pytest.raises(ValueError, match=r"id 4611686018427387904 is outside \[0, 2\*\*62\)"):
        code.key(1, 2**62)


def test_too_many_dynamic_tables_are_refused() -> None:
    assert min(KeyCode.of([None] * 4096).bits) == 52
    with pytest.raises(ValueError, match="use fewer dynamic tables"):
        KeyCode.of([None] * 4097)
    with pytest.raises(ValueError, match="do not fit 64-bit keys"):
        KeyCode.of([2**62] * 5)


def test_collision_odds() -> None:
    assert collision_odds(1, 52) == 0
    assert collision_odds(23, 8) == pytest.approx(0.628, abs=0.01)  # birthdays with 256 days
    assert collision_odds(10**6, 63) == pytest.approx(5.42e-8, rel=1e-3)
    assert "0.000542 pairs" in collision_text(10**8, 63)
