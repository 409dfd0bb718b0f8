"""Mixing functions on NumPy arrays: counter-based bits, and ids scattered over 32 bits."""

import numpy as np
import numpy.typing as npt


def bits64(counter: npt.NDArray[np.uint64], key: int) -> npt.NDArray[np.uint64]:
    """Give 64 well mixed bits for each (key, counter); the same pair always gives the same bits.

    SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators") jumped to
    a position: its finaliser over key + counter * golden gamma.
    """
    x = counter * np.uint64(0x9E3779B97F4A7C15)
    x += np.uint64(mix64(key))
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def mix64(key: int) -> int:
    """Finalise one key with SplitMix64's finaliser, so that keys 0, 1, 2, ... are unrelated."""
    mask = 2**64 - 1
    x = (key + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def scattered32(index: npt.NDArray[np.uint32], key: int) -> npt.NDArray[np.uint32]:
    """Scatter indices below 2^31: different indices of one key never share an id, and none is 0.

    The finaliser "lowbias32" (Ellis 2018, hash-prospector), every step of it invertible, and only 0
    goes to 0. Readers take id 0 for a missing value.
    """
    x = index + np.uint32(1 + mix64(key) % (2**31 - 1))
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return x
