"""The messages of a step: who sends what to whom, and in which order."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from step_blocks import counts_of, sides_of

from fourfold.comm.backend import BLOCK, Blocks
from fourfold.comm.nccl import schedule
from fourfold.comm.staged import runs


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("seed", range(5))
def test_every_message_is_sent_and_received(size: int, seed: int) -> None:
    """Messages of a pair match in order and size, whatever is empty; the bytes arrive in place."""
    counts = counts_of(size, seed)
    sides = [sides_of(counts, rank, gap=2) for rank in range(size)]
    for rank, (sent, got) in enumerate(sides):
        sent.memory[:] = np.random.default_rng(rank).integers(0, 256, sent.memory.size)
        got.memory[:] = 255
    wires: dict[tuple[int, int], deque[np.ndarray]] = {}
    plans = [list(schedule(rank, *side)) for rank, side in enumerate(sides)]
    for rank, plan in enumerate(plans):
        for m in plan:
            if m.kind == "send":
                part = sides[rank][0].memory[m.first : m.first + m.num_bytes]
                wires.setdefault((rank, m.peer), deque()).append(part)
    for rank, plan in enumerate(plans):
        for m in plan:
            if m.kind == "recv":
                part = sides[rank][1].memory[m.first : m.first + m.num_bytes]
                part[:] = wires[m.peer, rank].popleft()
    assert not any(wires.values())
    for rank, (_, got) in enumerate(sides):
        for peer in range(size):
            sent, start = sides[peer][0], sides[peer][0].starts[rank] * BLOCK
            part = sent.memory[start : start + counts[peer, rank] * BLOCK]
            at = got.starts[peer] * BLOCK
            np.testing.assert_array_equal(got.memory[at : at + part.size], part)
    for plan in plans:
        assert all(m.num_bytes > 0 for m in plan)


def test_no_rank_is_everybodys_first() -> None:
    counts = np.ones((5, 5), np.int64) - np.eye(5, dtype=np.int64)
    plans = [list(schedule(rank, *sides_of(counts, rank))) for rank in range(5)]
    for d in range(4):
        assert sorted(plan[2 * d].peer for plan in plans) == list(range(5))


def test_neighbours_are_copied_together() -> None:
    starts = np.array([0, 2, 5, 5, 9], np.int64)
    counts = np.array([2, 3, 0, 3, 1], np.int64)  # a gap of one block before the last
    found = list(runs(Blocks(None, counts, starts)))
    assert found == [(0, 8 * BLOCK), (9 * BLOCK, 10 * BLOCK)]
    nothing = np.zeros(3, np.int64)
    assert list(runs(Blocks(None, nothing, nothing))) == []
