"""Turn text fields into integers, all fields of a block at once.

A field is a span [start, end) of a byte buffer. Its last eight characters are read as one 64-bit
word, so that a handful of NumPy operations per block decode every field of it; a decimal number of
more digits takes a second word. Some 4 ns a field, where a Python loop takes 200.
"""

from __future__ import annotations

import binascii

import numpy as np
import numpy.typing as npt

from fourfold.runtime.data.batch import Int64, ranges

FRONT = 16
"""Bytes that a buffer must have before its first field."""

MAX_DIGITS = 15
"""Digits of the longest decimal number that is read: all such numbers are exact in float64."""

_ZEROS = 0x3030303030303030  # "00000000"
_ALL = (1 << 64) - 1
# The k bytes of a word that come last in memory (k = 0..8), and zeros for the others.
_LAST = np.array([_ALL ^ ((1 << 64 - 8 * k) - 1) for k in range(9)], np.uint64)
_FILL = np.array([_ZEROS & ~int(mask) for mask in _LAST], np.uint64)
_IS_HEX = np.isin(np.arange(256), list(b"0123456789abcdefABCDEF"))

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def padded(text: bytes | memoryview) -> Bytes:
    """Copy text into a buffer that has `FRONT` bytes before it, uint8 (FRONT + len(text),)."""
    buffer = np.empty(FRONT + len(text), np.uint8)
    buffer[:FRONT] = ord("0")
    buffer[FRONT:] = np.frombuffer(text, np.uint8)
    return buffer


def parse_hex8(buffer: Bytes, starts: Int64, ends: Int64) -> tuple[Int64, Mask]:
    """Read fields of eight hexadecimal digits; an empty field is 0.

    starts, ends: (n,). Gives the values, int64 (n,), and a mask of the fields that are neither.
    """
    lengths = ends - starts
    bad = (lengths != 8) & (lengths != 0)
    text = _words(buffer)[ends - 8]
    text[lengths != 8] = _ZEROS
    try:
        values = np.frombuffer(binascii.unhexlify(text.tobytes()), ">u4")
    except binascii.Error:
        wrong = ~_IS_HEX[text.view(np.uint8)].reshape(-1, 8).all(axis=1)
        text[wrong] = _ZEROS
        bad |= wrong
        values = np.frombuffer(binascii.unhexlify(text.tobytes()), ">u4")
    return values.astype(np.int64), bad


def parse_decimal(buffer: Bytes, starts: Int64, ends: Int64) -> tuple[Int64, Mask]:
    """Read decimal integers of up to `MAX_DIGITS` digits, "-" allowed; an empty field is 0.

    starts, ends: (n,). Gives the values, int64 (n,), and a mask of the fields that are no such
    number.
    """
    negative = (buffer[starts] == ord("-")) & (ends > starts)
    digits = ends - starts - negative
    bad = (digits > MAX_DIGITS) | (negative & (digits == 0))
    words = _words(buffer)
    values, wrong = _eight_digits(words[ends - 8], np.minimum(digits, 8))
    bad |= wrong
    if (long := np.flatnonzero(digits > 8)).size:
        high, wrong = _eight_digits(words[ends[long] - 16], np.clip(digits[long] - 8, 0, 8))
        values[long] += high * 100_000_000
        bad[long] |= wrong
    values[negative] *= -1
    return values, bad


def split_fields(
    starts: Int64,  # (n,) fields in any order
    ends: Int64,  # (n,)
    cuts: Int64,  # positions of all separators in the buffer, ascending
) -> tuple[Int64, Int64, Int64]:
    """Split every field at the separators inside it.

    Gives starts (m,) and ends (m,) of the values, field by field, and the number of values of each
    field (n,), at least 1: an empty field is one empty value.
    """
    first = np.searchsorted(cuts, starts)
    counts = np.searchsorted(cuts, ends) - first
    lengths = counts + 1
    inner = cuts[ranges(first, counts)]
    tops = np.cumsum(lengths)
    value_starts, value_ends = np.empty((2, tops[-1] if len(tops) else 0), np.int64)
    # The first value begins where its field does, every other one after a separator.
    begins = np.zeros(len(value_starts), np.bool_)
    begins[tops - lengths] = True
    value_starts[begins], value_starts[~begins] = starts, inner + 1
    begins[:] = False
    begins[tops - 1] = True
    value_ends[begins], value_ends[~begins] = ends, inner
    return value_starts, value_ends, lengths


def _words(buffer: Bytes) -> npt.NDArray[np.uint64]:
    """View eight bytes as one word, at every byte of the buffer."""
    return np.ndarray((len(buffer) - 7,), np.dtype("<u8"), buffer, strides=(1,))


def _eight_digits(word: npt.NDArray[np.uint64], digits: Int64) -> tuple[Int64, Mask]:
    """Read the last `digits` (0..8) characters of each word as a decimal number.

    Three multiplications for eight digits: D. Lemire, "Quickly parsing eight digits" (2018).
    """
    word = (word & _LAST[digits]) | _FILL[digits]
    word ^= np.uint64(_ZEROS)
    # A byte above 9 gets its top bit set, by the addition or because it has it already.
    wrong = ((word + np.uint64(0x7676767676767676)) | word) & np.uint64(0x8080808080808080) != 0
    word = word * np.uint64(10) + (word >> np.uint64(8))
    low = (word & np.uint64(0x000000FF000000FF)) * np.uint64(0x000F424000000064)
    high = (word >> np.uint64(16)) & np.uint64(0x000000FF000000FF)
    word = (low + high * np.uint64(0x0000271000000001)) >> np.uint64(32)
    return word.astype(np.int64), wrong
