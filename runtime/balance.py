"""Items with a cost and a size dealt to ranks: least possible load on the fullest rank.

Three ways, then the best of them. `largest_difference` is Karmarkar and Karp's differencing method
(1982) for many ranks: keep partial partitions, always merge the two most uneven ones, the fullest
rank of one with the emptiest of the other. `greedy` gives the next largest item to the
least-loaded rank that has room. `improve` then moves and swaps items off the fullest rank.

Sizes (bytes) are a hard limit for what `balance` returns. Items of one group (tiles of one table)
go to different ranks as long as there are enough of them.

Letters: I items, R ranks, G groups.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ranks = NDArray[np.int64]

SLACK = 1e-9
"""Relative gain below which a change is not worth making."""
CLOSE = 1e-4
"""So close to what no partition can be below, the search ends."""
SEARCH = 5e7
"""Moves and swaps looked at, at most."""


@dataclass(frozen=True, slots=True)
class Items:
    """What is to be dealt, and what the ranks hold already."""

    costs: Floats
    """(I,)"""
    sizes: Floats
    """(I,)"""
    groups: Ranks
    """(I,) numbers from 0; items of one group avoid each other."""
    base_costs: Floats
    """(R,)"""
    base_sizes: Floats
    """(R,)"""
    capacity: float
    """Largest sum of sizes on a rank."""

    @property
    def num_ranks(self) -> int:
        """Ranks there are."""
        return len(self.base_costs)

    @property
    def floor(self) -> float:
        """Load of the fullest rank that no partition can be much below."""
        mean = (self.costs.sum() + self.base_costs.sum()) / self.num_ranks
        largest = self.costs.max(initial=0.0) + self.base_costs.min()
        return (1 + CLOSE) * float(max(mean, largest, self.base_costs.max()))

    def loads(self, ranks: Ranks) -> Floats:
        """Add up costs by rank, (R,)."""
        return self.base_costs + np.bincount(ranks, self.costs, self.num_ranks)

    def held(self, ranks: Ranks) -> Floats:
        """Add up sizes by rank, (R,)."""
        return self.base_sizes + np.bincount(ranks, self.sizes, self.num_ranks)

    def groups_held(self, ranks: Ranks) -> NDArray[np.int32]:
        """Count the items of each group on each rank, (G, R)."""
        counts = np.zeros((int(self.groups.max(initial=-1)) + 1, self.num_ranks), dtype=np.int32)
        np.add.at(counts, (self.groups, ranks), 1)
        return counts


def balance(items: Items) -> Ranks | None:
    """Give each item a rank, (I,), so that the fullest rank is as empty as we can make it.

    None if no way was found to keep every rank within its capacity. Deterministic.
    """
    best: Ranks | None = None
    least = math.inf
    for ranks in _starts(items):
        if not (items.held(ranks) <= items.capacity).all():
            continue
        ranks = improve(items, ranks)
        peak = float(items.loads(ranks).max())
        if best is None or peak < least * (1 - SLACK):
            best, least = ranks, peak
        if least <= items.floor:
            break
    return best


def _starts(items: Items) -> Iterator[Ranks]:
    yield separate(items, largest_difference(items.costs, items.base_costs))
    for order in (items.costs, items.sizes):  # where memory is tight, big ones must go first
        ranks = greedy(items, order)
        if ranks is not None:
            yield ranks
    yield separate(items, largest_difference(items.sizes, items.base_sizes))


def greedy(items: Items, order: Floats) -> Ranks | None:
    """Deal the items, largest `order` first, to the least-loaded rank that has room."""
    loads, held = items.base_costs.copy(), items.base_sizes.copy()
    ranks = np.zeros(len(order), dtype=np.int64)
    taken = np.zeros((int(items.groups.max(initial=-1)) + 1, items.num_ranks), dtype=np.bool_)
    for item in np.argsort(-order, kind="stable"):
        rank = _emptiest(items, int(item), loads, held, taken[items.groups[item]])
        if rank is None:
            return None
        ranks[item] = rank
        taken[items.groups[item], rank] = True
        loads[rank] += items.costs[item]
        held[rank] += items.sizes[item]
    return ranks


def _emptiest(
    items: Items, item: int, loads: Floats, held: Floats, avoid: NDArray[np.bool_]
) -> int | None:
    """Find the least-loaded rank with room for an item, if possible outside `avoid` (R,)."""
    full = held + items.sizes[item] > items.capacity
    for closed in (full | avoid, full):
        rank = int(np.argmin(np.where(closed, np.inf, loads)))
        if not closed[rank]:
            return rank
    return None


def separate(items: Items, ranks: Ranks) -> Ranks:
    """Move items that share a rank with one of their group to ranks that have none."""
    ranks, loads, held = ranks.copy(), items.loads(ranks), items.held(ranks)
    counts = items.groups_held(ranks)
    for item in np.flatnonzero(counts[items.groups, ranks] > 1):
        group, old = items.groups[item], ranks[item]
        if counts[group, old] == 1:
            continue
        new = _emptiest(items, int(item), loads, held, counts[group] > 0)
        if new is None or counts[group, new] > 0:
            continue
        ranks[item] = new
        counts[group, [old, new]] += (-1, 1)
        loads[[old, new]] += (-items.costs[item], items.costs[item])
        held[[old, new]] += (-items.sizes[item], items.sizes[item])
    return ranks


def largest_difference(costs: Floats, base_costs: Floats) -> Ranks:
    """Partition by the largest differencing method, without regard to sizes."""
    num_items, num_ranks = len(costs), len(base_costs)
    # A partial partition is (minus its unevenness, number, loads, groups), for a heap: the loads of
    # its ranks that hold anything, fullest first. A group is a node of a forest whose leaves are
    # the items 0 .. I-1 and the ranks I .. I+R-1 with their base load; `joined` are inner nodes.
    order = np.argsort(-base_costs, kind="stable")
    partitions = [_partition(0, base_costs[order], num_items + order, num_ranks)]
    for item, cost in enumerate(costs):
        partitions.append(_partition(item + 1, np.array([cost]), np.array([item]), num_ranks))
    heapq.heapify(partitions)
    joined: list[tuple[int, int]] = []
    first_joined = num_items + num_ranks
    for number in range(num_items + 1, 2 * num_items + 1):
        _, _, loads, groups = heapq.heappop(partitions)
        _, _, others, partners = heapq.heappop(partitions)
        both = max(0, len(loads) + len(others) - num_ranks)
        alone = len(loads) - both  # these meet empty ranks; the others the emptiest partners first
        pairs = zip(groups[alone:].tolist(), partners[::-1][:both].tolist(), strict=True)
        new_groups = first_joined + len(joined) + np.arange(both)
        joined.extend(pairs)
        rest = len(others) - both
        merged = np.concatenate([loads[:alone], loads[alone:] + others[::-1][:both], others[:rest]])
        labels = np.concatenate([groups[:alone], new_groups, partners[:rest]])
        fullest = np.argsort(-merged, kind="stable")
        heapq.heappush(partitions, _partition(number, merged[fullest], labels[fullest], num_ranks))
    ranks = np.zeros(num_items, dtype=np.int64)
    for root in partitions[0][3].tolist():
        leaves, open_groups = [], [root]
        while open_groups:
            group = open_groups.pop()
            if group >= first_joined:
                open_groups.extend(joined[group - first_joined])
            else:
                leaves.append(group)
        rank = next(leaf - num_items for leaf in leaves if leaf >= num_items)
        ranks[[leaf for leaf in leaves if leaf < num_items]] = rank
    return ranks


def _partition(
    number: int, loads: Floats, groups: Ranks, num_ranks: int
) -> tuple[float, int, Floats, Ranks]:
    emptiest = loads[-1] if len(loads) == num_ranks else 0.0
    return (-float(loads[0] - emptiest), number, loads, groups)


def improve(items: Items, ranks: Ranks) -> Ranks:
    """Move an item off the fullest rank, or swap it for a smaller one, while that helps."""
    ranks, loads, held = ranks.copy(), items.loads(ranks), items.held(ranks)
    counts = items.groups_held(ranks)
    num_items, num_ranks = len(ranks), items.num_ranks
    rounds = int(SEARCH / (1 + num_items / num_ranks * (num_items + num_ranks)))
    floor = items.floor
    for _ in range(min(rounds, 2000)):
        full = int(np.argmax(loads))
        if loads[full] <= floor:
            break
        mine = np.flatnonzero(ranks == full)
        move = _moves(items, loads, held, counts, mine, full)
        swap = _swaps(items, ranks, loads, held, counts, mine, full)
        if min(move.min(initial=np.inf), swap.min(initial=np.inf)) >= loads[full] * (1 - SLACK):
            break
        if move.min() <= swap.min():
            i, rank = divmod(int(move.argmin()), num_ranks)
            changes = [(int(mine[i]), rank)]
        else:
            i, other = divmod(int(swap.argmin()), num_items)
            changes = [(int(mine[i]), int(ranks[other])), (other, full)]
        for item, new in changes:
            old = ranks[item]
            counts[items.groups[item], [old, new]] += (-1, 1)
            loads[[old, new]] += (-items.costs[item], items.costs[item])
            held[[old, new]] += (-items.sizes[item], items.sizes[item])
            ranks[item] = new
    return ranks


def _moves(
    items: Items,
    loads: Floats,
    held: Floats,
    counts: NDArray[np.int32],
    mine: Ranks,
    full: int,
) -> Floats:
    """Give the greater load of the two ranks after moving mine[i] to rank r, (len(mine), R)."""
    costs, sizes = items.costs[mine, None], items.sizes[mine, None]
    after: Floats = np.maximum(loads[full] - costs, loads + costs)
    after[(held + sizes > items.capacity) | (counts[items.groups[mine]] > 0)] = np.inf
    after[:, full] = np.inf
    return after


def _swaps(
    items: Items,
    ranks: Ranks,
    loads: Floats,
    held: Floats,
    counts: NDArray[np.int32],
    mine: Ranks,
    full: int,
) -> Floats:
    """Give the greater load of the two ranks after swapping mine[i] with item j, (len(mine), I)."""
    gain = items.costs[mine, None] - items.costs
    grown = items.sizes[mine, None] - items.sizes
    after: Floats = np.maximum(loads[full] - gain, loads[ranks] + gain)
    after[(held[ranks] + grown > items.capacity) | (held[full] - grown > items.capacity)] = np.inf
    after[counts[items.groups[mine]][:, ranks] > 0] = np.inf
    after[:, (counts[items.groups, full] > 0) | (ranks == full)] = np.inf
    return after
