"""Ids from text."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourfold.runtime.data.hashing import (
    collision_odds,
    describe_hashing,
    text_id,
    text_ids,
)


@given(st.lists(st.binary(max_size=40)))
def test_many_as_one_by_one(texts: list[bytes]):
    lengths = np.array([len(text) for text in texts], np.int64)
    starts = np.cumsum(lengths) - lengths
    data = np.frombuffer(b"".join(texts) + b"\xff" * 8, np.uint8)

    assert text_ids(data, starts, lengths).tolist() == [text_id(text) for text in texts]


def test_ids_never_change():
    """Trained rows are stored under these ids: this test must not be adapted to the code."""
    assert text_id("") == 0xE220A8397B1DC  # SplitMix64's first output from seed 0
    assert text_id("a") == 0x5E025F9ADE9EA
    assert text_id("Fourfold") == text_id(b"Fourfold") == 0xA047F50F39D80
    assert text_id("Fourfold trains recommendation models") == 0xD74521DB542BB
    assert text_id("\N{GREEK SMALL LETTER ALPHA}") == text_id(b"\xce\xb1")


def test_ids_are_spread_over_52_bits():
    ids = np.array([text_id(f"user {i}") for i in range(20_000)])

    assert ids.min() >= 0
    assert ids.max() < 2**52
    assert len(set(ids.tolist())) == len(ids)
    # Each bit is set in half of them: 6 standard deviations.
    ones = (ids[:, None] >> np.arange(52)) & 1
    assert np.abs(ones.mean(axis=0) - 0.5).max() < 6 * 0.5 / math.sqrt(len(ids))


def test_collision_odds():
    assert collision_odds(1) == 0
    assert collision_odds(2) == pytest.approx(2.0**-52)
    assert collision_odds(1e6) == pytest.approx(1.11e-4, rel=0.01)
    assert collision_odds(1e9) == pytest.approx(1)
    assert "1.1e-06 for 100 thousand, 0.00011 for 1 million" in describe_hashing(("user",))
