"""The native router against a model in plain Python, for worlds simulated in one process."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import at, from_wire, mix, scale, to_wire

from fourfold.comm._native import BLOCK, Buffer, Route, Router
from fourfold.comm.placement import Placement
from fourfold.comm.route import Feature, LookupStats, choose_replies, measure_lookups
from fourfold.comm.tile import Shape, Tile

BIG = 2**52
WIRES = ("fp32", "bf16", "fp16")
POOLINGS = ("sum", "mean", "none")
CREDITS = st.sampled_from([0.0, 0.1, 0.7, 1.0, 3.3, 1e5])
"""Of samples. Their sums in fp32 depend on the order."""


class World:
    """All ranks of an exchange in one process; messages are copied by slices."""

    def __init__(self, size: int, tables: list[Any], features: list[Any], tiles: list[Any]) -> None:
        self.size = size
        self.routers = [
            Router(rank, size, 1 + rank % 2, 0, tables, features, tiles) for rank in range(size)
        ]

    def route(self, batches: list[tuple[Any, ...]]) -> list[Route]:
        routes = [r.route(*batch) for r, batch in zip(self.routers, batches, strict=True)]
        self.swap(
            [(r.header_sent, *x.headers_sent) for r, x in zip(routes, self.routers, strict=True)],
            [(r.header_got, *x.headers_got) for r, x in zip(routes, self.routers, strict=True)],
        )
        for router, route in zip(self.routers, routes, strict=True):
            router.accept(route)
        self.swap(
            [(r.message_sent, *r.messages_sent) for r in routes],
            [(r.message_got, *r.messages_got) for r in routes],
        )
        for router, route in zip(self.routers, routes, strict=True):
            router.unpack(route)
        return routes

    def swap(self, sent: list[Any], got: list[Any]) -> None:
        for a, b in np.ndindex(self.size, self.size):
            memory, counts, starts, _ = sent[a]
            to, to_counts, to_starts, _ = got[b]
            assert counts[b] == to_counts[a], "both ends know the size of every message"
            n, i, j = (BLOCK * int(x) for x in (counts[b], starts[b], to_starts[a]))
            to[j : j + n] = memory[i : i + n]


def place(table: int, dynamic: bool, buckets: int, key: int) -> tuple[int, int]:
    if buckets == 1:
        return 0, key
    salt = mix(table ^ 0x66F0F0F10F1FFF04)
    if dynamic:
        return scale(mix(key ^ salt), buckets), key
    q, r = divmod(key, buckets)
    return (r + scale(mix(q ^ salt), buckets)) % buckets, q


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """A world of 1 to 4 ranks, 1 to 3 tables, 1 to 4 features, and a batch per rank."""
    size = draw(st.integers(1, 4))
    tables, tiles = [], []
    for t in range(draw(st.integers(1, 3))):
        dynamic, pooled, credited = (draw(st.booleans()) for _ in range(3))
        limit = BIG if dynamic else draw(st.sampled_from([1, 2, 7, 1000, 2**40]))
        buckets = draw(st.integers(1, 5))
        dim = draw(st.integers(1, 12))
        cuts = sorted({0, dim, draw(st.integers(0, dim))})
        tables.append((f"t{t}", dim, limit, dynamic, False, pooled, credited))
        for b in range(buckets):
            for start, stop in pairwise(cuts):
                ranks = draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=size))
                tiles.append((t, b, start, stop, sorted(ranks)))
    features = []
    for f in range(draw(st.integers(1, 4))):
        table = draw(st.integers(0, len(tables) - 1))
        pooling = draw(st.integers(0, 1 if tables[table][5] else 2))
        features.append((f"f{f}", table, pooling))
    weighted = draw(st.booleans())
    batches = []
    for _ in range(size):
        batch = draw(st.integers(0, 4))
        ids: list[int] = []
        offsets = [0]
        for _, table, _ in features:
            limit = tables[table][2]
            key = st.integers(0, limit - 1) | st.integers(0, min(limit, 4) - 1)
            for _ in range(batch):
                ids += draw(st.lists(key, max_size=4))
                offsets.append(len(ids))
        weights = np.arange(1, len(ids) + 1, dtype=np.float32) if weighted else None
        credits = None
        if batch and any(table[6] for table in tables):
            credits = np.array(draw(st.lists(CREDITS, min_size=batch, max_size=batch)), np.float32)
        batches.append((np.array(ids, np.int64), np.array(offsets), weights, batch, credits))
    return {
        "size": size,
        "tables": tables,
        "features": features,
        "tiles": tiles,
        "batches": batches,
    }


def model(
    case: dict[str, Any], requester: int, tile: Any
) -> tuple[list[int], list[int], list[float], list[float]]:
    """Positions, lengths, weights and credits that `requester` sends for one tile."""
    table, bucket = tile[:2]
    _, _, _, dynamic, _, pooled, credited = case["tables"][table]
    buckets = 1 + max(t[1] for t in case["tiles"] if t[0] == table)
    ids, offsets, weights, batch, credits = case["batches"][requester]
    seen: dict[int, int] = {}
    out: list[int] = []
    lengths: list[int] = []
    factors: list[float] = []
    earned: list[np.float32] = []
    for f, (_, feature_table, _) in enumerate(case["features"]):
        if feature_table != table:
            continue
        for b in range(batch):
            before = len(out)
            for i in range(offsets[f * batch + b], offsets[f * batch + b + 1]):
                where, position = place(table, dynamic, buckets, int(ids[i]))
                if where != bucket:
                    continue
                credit = credits[b] if credited else np.float32(1)
                if not pooled and position in seen:
                    if credited:
                        earned[seen[position]] += credit
                    continue
                seen[position] = len(out)
                out.append(position)
                factors.append(1.0 if weights is None or not pooled else float(weights[i]))
                earned.append(credit)
            if pooled and len(out) > before:
                lengths.append(len(out) - before)
    return out, lengths, factors, [float(credit) for credit in earned]


@given(case=cases())
def test_requests(case: dict[str, Any]) -> None:
    """Every holder gets what the model says, segment by segment."""
    world = World(case["size"], case["tables"], case["features"], case["tiles"])
    routes = world.route(case["batches"])
    for rank, (router, route) in enumerate(zip(world.routers, routes, strict=True)):
        assert route.global_batch == sum(batch[3] for batch in case["batches"])
        held = [tile for tile in case["tiles"] if rank in tile[4]]
        assert router.segment_tile.tolist() == [
            j for j in range(len(held)) for _ in range(case["size"])
        ]
        length = 0
        for s in range(len(held) * case["size"]):
            tile, requester = held[s // case["size"]], s % case["size"]
            ids, lengths, weights, credits = model(case, requester, tile)
            first, last = route.first[s : s + 2]
            assert route.ids[first:last].tolist() == ids
            pooled = case["tables"][tile[0]][5]
            assert router.segment_pooled[s] == pooled
            rows = int(route.bags[s + 1] - route.bags[s])
            assert rows == (len(lengths) if pooled else len(ids))
            if pooled:
                assert route.lengths[length : length + rows].tolist() == lengths
                length += rows
            if route.weights.size:
                assert route.weights[first:last].tolist() == weights
            if route.credits.size:
                assert route.credits[first:last].tolist() == credits
            provider = requester if requester in tile[4] else tile[4][requester % len(tile[4])]
            assert router.segment_replies[s] == (provider == rank)
        assert length == route.lengths.size
        told = any(case["tables"][tile[0]][6] for tile in held)
        assert route.credits.size == (route.ids.size if told else 0)


@given(case=cases())
def test_messages(case: dict[str, Any]) -> None:
    """Segments on blocks of their own: ids, lengths, weights and credits, and nothing else."""
    world = World(case["size"], case["tables"], case["features"], case["tiles"])
    routes = world.route(case["batches"])
    for rank, (router, route) in enumerate(zip(world.routers, routes, strict=True)):
        counts, starts, total = route.messages_sent
        weighted = case["batches"][rank][2] is not None
        end = 0
        for peer in range(case["size"]):
            first, at = end, int(starts[peer]) * BLOCK
            assert at == first
            for tile in (tile for tile in case["tiles"] if peer in tile[4]):
                ids, lengths, weights, credits = model(case, rank, tile)
                _, _, limit, dynamic, _, pooled, credited = case["tables"][tile[0]]
                buckets = 1 + max(t[1] for t in case["tiles"] if t[0] == tile[0])
                wide = (limit if dynamic else -(-limit // buckets)) > 2**32
                parts = [np.array(ids, np.int64 if wide else np.uint32)]
                parts += [np.array(lengths, np.int32)] if pooled else []
                parts += [np.array(weights, np.float32)] if pooled and weighted else []
                parts += [np.array(credits, np.float32)] if credited else []
                want = b"".join(part.tobytes() for part in parts)
                assert route.message_sent[at : at + len(want)].tobytes() == want
                at += -(-len(want) // BLOCK) * BLOCK
            end = at
            assert counts[peer] * BLOCK == (0 if peer == rank else end - first)
        assert total == end
        assert route.traffic[2] == BLOCK * (counts.sum() + router.headers_sent[0].sum())


@given(case=cases())
def test_routes_are_reused(case: dict[str, Any]) -> None:
    """A route built in used memory equals one built in new memory."""
    world = World(case["size"], case["tables"], case["features"], case["tiles"])
    fresh = World(case["size"], case["tables"], case["features"], case["tiles"])
    empty = np.zeros(1, np.int64)
    world.route([(np.empty(0, np.int64), empty, None, 0)] * case["size"])
    world.route(case["batches"][::-1])
    for used, new in zip(world.route(case["batches"]), fresh.route(case["batches"]), strict=True):
        for name in ("ids", "first", "bags", "lengths", "weights", "credits"):
            np.testing.assert_array_equal(getattr(used, name), getattr(new, name))
        assert used.traffic == new.traffic


def alone(dim: int, wire: str, pooling: int, pooled: bool, threads: int = 1) -> Router:
    """One rank, one table in two buckets, two features."""
    tiles = [(0, 0, 0, dim, [0]), (0, 1, 0, dim, [0])]
    features = [("a", 0, pooling), ("b", 0, pooling)]
    table = ("t", dim, 97, False, False, pooled, False)
    return Router(0, 1, threads, WIRES.index(wire), [table], features, tiles)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("dim", [1, 2, 3, 4, 7, 8, 12, 16, 20, 31, 32, 64, 100, 128, 200, 300])
def test_every_width(dim: int, wire: str) -> None:
    """Kernels of every width and type: sums in fp32, one rounding."""
    rng = np.random.default_rng(dim)
    lengths = rng.integers(0, 5, 80)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(0, 97, offsets[-1])
    router = alone(dim, wire, 0, False, threads=2)
    route = router.route(ids, offsets, None, 40)
    router.accept(route)
    router.unpack(route)
    table = to_wire(rng.integers(-8, 9, (97, dim)) / 8, wire)
    got, sent = Buffer().reserve(route.reply_got[2]), Buffer().reserve(route.gradient_sent[2])
    nothing = np.empty(0, np.uint8)
    addresses = router.reply_addresses(route, nothing.ctypes.data, got.ctypes.data)
    keys = [
        [k for p in route.ids[a:b] for k in range(97) if place(0, False, 2, k) == (s, p)]
        for s, (a, b) in enumerate(pairwise(route.first))
    ]
    for s, own in enumerate(keys):
        at(int(addresses[s]), len(own), dim, wire)[:] = table[own]
    out = np.empty((40, 2 * dim), np.float32)
    router.pool(route, got, out, [])
    rows = from_wire(table, wire)[ids]
    want = [rows[a:b].sum(axis=0) for a, b in pairwise(offsets)]
    np.testing.assert_array_equal(out, np.hstack([want[:40], want[40:]]))

    grad = (rng.integers(-8, 9, out.shape) / 8).astype(np.float32)
    router.spread(route, grad, [], sent)
    total = np.zeros((97, dim))
    bag_grads = np.concatenate([grad[:, :dim], grad[:, dim:]])
    np.add.at(total, ids, np.repeat(bag_grads, lengths, axis=0))
    for s, own in enumerate(keys):
        address = int(router.gradient_addresses(route, sent.ctypes.data, nothing.ctypes.data)[s])
        np.testing.assert_array_equal(at(address, len(own), dim, wire), to_wire(total[own], wire))


@pytest.mark.parametrize("wire", ["bf16", "fp16"])
def test_every_half(wire: str) -> None:
    """All 65,536 values of a 16-bit type are read exactly; floats are rounded to even."""
    bits = np.arange(2**16, dtype=np.uint16)
    dim = 256
    router = Router(
        0, 1, 1, WIRES.index(wire), [("t", dim, 256, False, False, False, False)], [("a", 0, 0)],
        [(0, 0, 0, dim, [0])],
    )  # fmt: skip
    route = router.route(np.arange(256), np.arange(257), None, 256)
    router.accept(route)
    router.unpack(route)
    got, sent = Buffer().reserve(route.reply_got[2]), Buffer().reserve(route.gradient_sent[2])
    got.view(np.uint16)[: 2**16] = bits
    out = np.empty((256, dim), np.float32)
    router.pool(route, got, out, [])
    with np.errstate(invalid="ignore"):
        values = from_wire(bits if wire == "bf16" else bits.view(np.float16), wire)
        np.testing.assert_array_equal(out.ravel(), values.astype(np.float32))

    floats = np.random.default_rng(1).integers(0, 2**32, 2**16, np.uint32).view(np.float32)
    floats = np.where(np.isnan(floats), np.float32(0.1), floats)
    with np.errstate(over="ignore", invalid="ignore"):
        floats[::3] = out.ravel()[::3] * np.float32(1.00390625)  # ties
        floats = np.where(np.isnan(floats), np.float32(0.1), floats)
        expected = to_wire(floats, wire)
    router.spread(route, floats.reshape(256, dim), [], sent)
    np.testing.assert_array_equal(sent.view(np.uint16)[: 2**16], expected.view(np.uint16))


def test_large_batch_in_a_small_and_a_large_table() -> None:
    """Direct look-up, hashing, collisions of many ids, and many epochs of one scratch."""
    rng = np.random.default_rng(3)
    tables = [
        ("s", 4, 1000, False, False, False, False),
        ("d", 4, 2**62, True, False, False, False),
    ]
    router = Router(
        0, 1, 1, 0, tables, [("a", 0, 0), ("b", 1, 0)], [(0, 0, 0, 4, [0]), (1, 0, 0, 4, [0])]
    )
    for _ in range(20):
        n = int(rng.integers(1, 20000))
        small = rng.integers(0, 1000, n)
        large = rng.integers(0, 50, n) << int(rng.integers(0, 56))
        route = router.route(np.concatenate([small, large]), np.arange(2 * n + 1), None, n)
        router.accept(route)
        router.unpack(route)
        for s, own in enumerate((small, large)):
            _, first = np.unique(own, return_index=True)
            want = own[np.sort(first)]
            np.testing.assert_array_equal(route.ids[route.first[s] : route.first[s + 1]], want)


def placement(*tiles: Tile, dim: int = 64, rows: int | None = 10**6, world: int = 2) -> Placement:
    return Placement((Shape("t", dim, rows),), tiles, world)


WHOLE = placement(Tile(0, 0, 1, 0, 64, (0,)))
SUM = [Feature("a", 0, "sum")]


def test_choose_replies() -> None:
    one_hot = LookupStats(lookups=1000, unique=400, bags=1000)
    bags = LookupStats(lookups=20000, unique=7000, bags=1000)
    hot_bags = LookupStats(lookups=20000, unique=300, bags=1000)
    assert choose_replies(SUM, WHOLE, [one_hot]) == ("rows",)
    assert choose_replies(SUM, WHOLE, [bags]) == ("pooled",)
    assert choose_replies(SUM, WHOLE, [hot_bags]) == ("rows",)
    assert choose_replies([Feature("a", 0, "none")], WHOLE, [bags]) == ("rows",)


def test_choose_replies_over_many_buckets() -> None:
    """A long bag meets every bucket, so partial sums stop paying when buckets are many."""
    stats = [LookupStats(lookups=8000, unique=6000, bags=1000)]
    assert choose_replies(SUM, WHOLE, stats) == ("pooled",)
    rows = placement(*(Tile(0, b, 16, 0, 64, (b,)) for b in range(16)), world=16)
    assert choose_replies(SUM, rows, stats) == ("rows",)


def test_choose_replies_of_one_rank() -> None:
    """Nothing travels: what is copied least within the rank."""
    own = placement(Tile(0, 0, 1, 0, 64, (0,)), world=1)
    bags = LookupStats(lookups=20000, unique=7000, bags=1000)
    assert choose_replies(SUM, own, [bags]) == ("pooled",)


def test_measure_lookups() -> None:
    features = [Feature("a", 0, "sum"), Feature("b", 1, "sum"), Feature("c", 0, "sum")]
    first = (np.array([1, 1, 2, 5, 2]), np.array([0, 2, 2, 3, 4, 4, 5]), 2)
    second = (np.array([], np.int64), np.array([0]), 0)
    assert measure_lookups(features, 2, [first, second]) == (
        LookupStats(lookups=1.5, unique=1.0, bags=1.0),
        LookupStats(lookups=1.0, unique=1.0, bags=1.0),
    )
