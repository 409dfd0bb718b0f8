"""The thread pool, used by several application threads at once."""

import threading

import pytest

from fourfold.storage import _native


@pytest.mark.parametrize("threads", [1, 2, 5, 32])
@pytest.mark.parametrize("n", [0, 1, 7, 1000])
def test_every_element_is_visited_once(n: int, threads: int) -> None:
    assert _native.parallel_sums(n, threads, 3) == 3 * n * (n - 1) // 2


def test_callers_do_not_disturb_each_other() -> None:
    totals: list[int] = []

    def work() -> None:
        totals.append(_native.parallel_sums(1000, 3, 2000))

    callers = [threading.Thread(target=work) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
    assert totals == [2000 * 499500] * 4
