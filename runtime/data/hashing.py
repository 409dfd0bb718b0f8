"""Ids from text: a 64-bit hash of the bytes, of which 52 bits are the id.

52 bits, because that is what a dynamic table's key has left for an id. Two of n distinct texts then
share an id with odds of 1 - exp(-n^2 / 2^53): see `collision_odds`. The same text is the same id in
every column, file, run and release, so features that share a table share its rows, and whoever
serves a trained model can compute the ids (`text_id`).

The hash takes the bytes in words of eight, little endian, the last one padded with zeros:

    h = mix(length);  for each word w: h = mix(h ^ w);  id = h >> 12
    mix(x) = SplitMix64's step (Steele, Lea, Flood 2014; constants of Vigna's splitmix64.c)

DO NOT CHANGE IT: trained rows are stored under these ids.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fourfold.runtime.data.batch import Int64

HASH_BITS = 52

_ALL = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
# The low k bytes of a word, for k = 0..8.
_LOW = np.array([(1 << 8 * k) - 1 for k in range(9)], np.uint64)


def text_id(text: str | bytes) -> int:
    """Give the id of one text, in [0, 2^52). A str is taken as UTF-8."""
    data = text.encode() if isinstance(text, str) else text
    h = _mix_one(len(data))
    for at in range(0, len(data), 8):
        h = _mix_one(h ^ int.from_bytes(data[at : at + 8], "little"))
    return h >> 64 - HASH_BITS


def text_ids(
    data: npt.NDArray[np.uint8],  # text bytes; at least 8 more bytes follow the last text
    starts: Int64,  # (n,) first byte of each text
    lengths: Int64,  # (n,)
) -> Int64:
    """Give the ids of many texts, int64 (n,); what `text_id` gives for each."""
    # Every 8 bytes of the data as one word, at any byte position.
    words = np.ndarray((max(len(data) - 7, 0),), np.dtype("<u8"), data, strides=(1,))
    h = mix(lengths.astype(np.uint64))
    rest = np.arange(len(starts))  # texts that have not ended yet
    at = 0
    while len(rest := rest[lengths[rest] > at]):
        word = words[starts[rest] + at] & _LOW[np.minimum(lengths[rest] - at, 8)]
        h[rest] = mix(h[rest] ^ word)
        at += 8
    return (h >> np.uint64(64 - HASH_BITS)).view(np.int64)


def collision_odds(distinct: float) -> float:
    """Give the odds that any two of `distinct` different texts share an id."""
    return -math.expm1(-distinct * (distinct - 1) / 2 ** (HASH_BITS + 1))


def describe_hashing(columns: tuple[str, ...]) -> str:
    """Say in one line which columns are hashed and how likely a collision is."""
    odds = ", ".join(
        f"{collision_odds(n):.2g} for {name}"
        for n, name in ((1e5, "100 thousand"), (1e6, "1 million"), (1e7, "10 million"))
    )
    return (
        f"text of {', '.join(columns)} is hashed to {HASH_BITS} bits; odds that any two different "
        f"texts share an id: {odds} distinct texts"
    )


def mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Take one step of SplitMix64 from every state: (n,) -> (n,), a bijection."""
    x = x + np.uint64(_GOLDEN)
    x ^= x >> np.uint64(30)
    x *= np.uint64(_FIRST)
    x ^= x >> np.uint64(27)
    x *= np.uint64(_SECOND)
    x ^= x >> np.uint64(31)
    return x


def _mix_one(x: int) -> int:
    x = (x + _GOLDEN) & _ALL
    x = ((x ^ x >> 30) * _FIRST) & _ALL
    x = ((x ^ x >> 27) * _SECOND) & _ALL
    return x ^ x >> 31
