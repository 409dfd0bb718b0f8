"""Scores of 16 bits: their values and order, and decay against Kraken's rule per interval."""

import bisect
import itertools
import re
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reclaim_model import bin_floor, bin_of, decayed, kraken_scores, value_of

from fourfold.storage._native import (
    Decay,
    bin_value,
    credited,
    score_bin,
    score_of,
    score_value,
)

ALL = np.arange(65536, dtype=np.uint32).astype(np.uint16)
VALUES = [value_of(score) for score in range(65536)]
NATIVE = Path(__file__).parents[2] / "storage" / "native"


def touch(score: int, intervals: int, credit: float, decay: Decay) -> int:
    """One row's new score."""
    return int(
        credited(
            np.array([score], np.uint16),
            np.array([intervals], np.uint32),
            np.array([credit], np.float32),
            decay,
        )[0]
    )


def nearest(value: int) -> int:
    """The score next to a value, the even one of two."""
    above = bisect.bisect_left(VALUES, value)
    if above == 65536:
        return 65535
    if above == 0 or VALUES[above] == value:
        return above
    up, down = VALUES[above] - value, value - VALUES[above - 1]
    return above - (down < up or (down == up and above % 2 == 1))


def test_every_score_has_its_value_and_comes_back() -> None:
    values = score_value(ALL)

    assert values.tolist() == VALUES
    assert np.all(np.diff(values.astype(np.int64)) > 0)
    assert np.array_equal(score_of(values), ALL)


def test_values_go_to_the_nearest_score_and_ties_to_the_even_one() -> None:
    middles = [(a + b) // 2 for a, b in itertools.pairwise(VALUES)]
    near = [
        max(0, middle + off) for middle in middles[::7] + middles[2040:4200] for off in (-1, 0, 1)
    ]
    huge = [VALUES[-1] + off for off in (-1, 0, 1, 2**29)] + [2**42 - 1, 2**42, 2**63, 2**64 - 1]
    values = near + huge

    got = score_of(np.array(values, np.uint64)).tolist()

    assert got == [nearest(value) for value in values]


def test_bins_are_in_order_and_two_per_power_of_two() -> None:
    bins = score_bin(ALL)
    floors = bin_value(np.arange(64, dtype=np.uint32))

    assert bins.tolist() == [bin_of(value) for value in VALUES]
    assert floors.tolist() == [bin_floor(index) for index in range(64)]
    assert np.unique(bins).tolist() == list(range(64))
    assert np.all(score_value(ALL) >= floors[bins])
    assert np.all((score_value(ALL) < floors[np.minimum(bins + 1, 63)]) | (bins == 63))
    few = score_bin(score_of(np.array([64, 128, 192, 256, 384, 512], np.uint64)))
    assert len(set(few.tolist())) == 6  # seen 1, 2, 3, 4, 6, 8 times


@pytest.mark.parametrize("beta", [0.0, 1e-12, 1e-4, 0.1, 0.5, 0.9, 1.0])
def test_decay_is_a_product_of_powers_rounded_down(beta: float) -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.integers(0, 2**42, 500), rng.integers(0, 200, 500)])
    edges = [0, 1, 2, 3, 2**16, 2**17 - 1, 2**17, 2**32 - 1]
    intervals = np.concatenate([rng.integers(0, 40, 900), rng.choice(edges, 100)])

    left = Decay(beta).apply(values.astype(np.uint64), intervals.astype(np.uint32)).tolist()

    for value, n, got in zip(values.tolist(), intervals.tolist(), left, strict=True):
        assert got == decayed(value, n, beta)
        exact = Fraction(1 - beta) ** min(n, 2**17) * value if n < 2000 else None
        if exact is not None:  # each product loses less than one, and 2^-32 of the value
            assert exact - 17 * (1 + value / 2**32) <= got <= exact + 17 * value / 2**32


gaps = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7)), min_size=1, max_size=8)


@given(gaps)
def test_lazy_decay_is_krakens_rule_exactly_where_nothing_rounds(
    touches: list[tuple[int, int]],
) -> None:
    """Halved at most six times, and below 64: all bits fit."""
    beta, decay = Fraction(1, 2), Decay(0.5)
    score, earned = 0, [Fraction(0)]
    for gap, credit in touches:
        if len(earned) + gap > 7:
            gap = 0
        score = touch(score, gap, credit, decay)
        earned += [Fraction(0)] * gap
        earned[-1] += credit
        assert Fraction(value_of(score), 64) * beta == kraken_scores(earned, beta)[-1]


@given(
    st.sampled_from([0.01, 0.1, 0.3, 0.9]),
    st.lists(st.tuples(st.integers(0, 20), st.floats(0, 2**20, width=32)), min_size=1, max_size=15),
)
def test_lazy_decay_is_krakens_rule_up_to_rounding(
    beta: float, touches: list[tuple[int, float]]
) -> None:
    decay = Decay(beta)
    score, earned, slack = 0, [Fraction(0)], Fraction(0)
    for gap, credit in touches:
        score = touch(score, gap, credit, decay)
        earned += [Fraction(0)] * gap
        earned[-1] += Fraction(credit)
        value = Fraction(value_of(score), 64)
        slack += Fraction(6, 64) + value / 2**11
        exact = kraken_scores(earned, Fraction(beta))[-1] / Fraction(beta)
        assert abs(value - exact) <= slack


@given(st.lists(st.integers(0, 40), max_size=30))
def test_without_decay_a_score_is_a_count(credits: list[int]) -> None:
    score = 0
    for i, credit in enumerate(credits):
        score = touch(score, 1000 * i, credit, Decay(0))
    assert value_of(score) == value_of(nearest(64 * sum(credits)))


@pytest.mark.parametrize("halves", [1, 3, 77, 2**23 - 1, 2**23 + 1, 2**24 - 1])
def test_half_a_sixty_fourth_counts_as_one(halves: int) -> None:
    assert touch(0, 0, halves / 128, Decay(0)) == nearest((halves + 1) // 2)


@given(st.floats(width=32, allow_nan=False))
def test_credits_round_to_the_nearest_sixty_fourth(credit: float) -> None:
    bounded = min(max(0.0, credit), 2.0**40)
    expected = nearest(int(Fraction(bounded) * 64 + Fraction(1, 2)))
    assert touch(0, 0, credit, Decay(0)) == expected


@pytest.mark.parametrize("credit", [float("nan"), -1.0, -float("inf"), -0.0])
def test_credits_that_are_none_change_nothing(credit: float) -> None:
    assert touch(777, 0, credit, Decay(0.5)) == 777


@pytest.mark.parametrize("credit", [1e38, float("inf"), 7e10])
def test_credits_that_are_huge_fill_the_score(credit: float) -> None:
    assert touch(777, 0, credit, Decay(0.5)) == 65535


def test_wrong_arguments_are_refused() -> None:
    for beta in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"beta must be in \[0, 1\]"):
            Decay(beta)
    with pytest.raises(ValueError, match="equally many"):
        Decay(0.1).apply(np.zeros(2, np.uint64), np.zeros(1, np.uint32))


def test_the_header_needs_nothing_that_a_gpu_compiler_lacks(tmp_path: Path) -> None:
    """As NVRTC sees it: no headers of the system, and functions of the device instead."""
    includes = re.findall(r"#include\s+(\S+)", (NATIVE / "score.h").read_text())
    assert includes == ['"config.h"']

    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    source = tmp_path / "kernel.cpp"
    source.write_text(
        """
        extern "C" void* memcpy(void*, const void*, __SIZE_TYPE__);
        unsigned long long __umul64hi(unsigned long long, unsigned long long);
        int __clzll(long long);
        float sqrtf(float);
        #include "score.h"
        unsigned short kernel(ff::Decay decay) { return ff::credited(1, 2, 3.0f, decay); }
        """
    )
    device = ["-D__CUDACC__", "-D__CUDACC_RTC__", "-D__CUDA_ARCH__=800"]
    words = ["-D__host__=", "-D__device__=", "-D__forceinline__=inline"]
    flags = ["-std=c++17", "-fsyntax-only", "-nostdinc", "-nostdinc++", f"-I{NATIVE}"]
    subprocess.run([compiler, *flags, *device, *words, str(source)], check=True)
