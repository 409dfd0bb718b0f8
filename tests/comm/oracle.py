"""One process that holds every row, and a holder made of NumPy over raw addresses.

Rows, weights and gradients are small multiples of 1/8, so that fp32 sums are exact in any order and
tests compare for equality, without a tolerance.
"""

from __future__ import annotations

import ctypes
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fourfold.comm.exchange import Exchange, Routed
from fourfold.comm.placement import Placement
from fourfold.comm.route import Feature
from fourfold.comm.tile import Shape, Tile

MASK = 2**64 - 1
SHAPES = (Shape("users", 8, 50), Shape("words", 20, None), Shape("tiny", 6, 3))
ID_BITS = 40
AXES = ("table", "row", "column", "grid", "data", "hierarchical")
ROLES = ("colocated", "split", "overlapping")

Array = np.ndarray[Any, Any]


def mix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def scale(hashed: int, count: int) -> int:
    return ((hashed >> 32) * count) >> 32


def place(table: int, buckets: int, key: int) -> tuple[int, int]:
    """Bucket and position of an id."""
    salt = mix(table ^ 0x66F0F0F10F1FFF04)
    if buckets == 1:
        return 0, key
    if SHAPES[table].rows is None:
        return scale(mix(key ^ salt), buckets), key
    q, r = divmod(key, buckets)
    return (r + scale(mix(q ^ salt), buckets)) % buckets, q


def row(table: int, key: int) -> Array:
    """The row of an id: eighths in [-1, 1], float64; sums of a bag are exact even in bf16."""
    columns = np.arange(SHAPES[table].dim)
    return ((columns * 7 + key % 1009 * 13 + table * 5) % 17 - 8) / 8.0


def tiles_of(axis: str, table: int, holders: tuple[int, ...]) -> list[Tile]:
    dim, n = SHAPES[table].dim, len(holders)
    half = max(4, dim // 2 // 4 * 4)
    pick = [holders[(table + i) % n] for i in range(4)]
    cuts = {0: (0, half), 1: (half, dim)}
    match axis:
        case "table":
            return [Tile(table, 0, 1, 0, dim, (pick[0],))]
        case "row":
            buckets = max(n, 3)
            return [Tile(table, b, buckets, 0, dim, (holders[b % n],)) for b in range(buckets)]
        case "column":
            return [Tile(table, 0, 1, *cuts[c], (pick[c],)) for c in cuts]
        case "grid":
            return [Tile(table, b, 2, *cuts[c], (pick[2 * b + c],)) for b in range(2) for c in cuts]
        case "data":
            return [Tile(table, 0, 1, 0, dim, holders)]
        case _:  # rows within a group of ranks, replicated over two groups, ragged columns
            ranks = [tuple(sorted({pick[b], pick[b + 2]})) for b in range(2)]
            return [
                Tile(table, 0, 2, 0, dim, ranks[0]),
                *(Tile(table, 1, 2, *cuts[c], ranks[1]) for c in cuts),
            ]


def roles_of(roles: str, size: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Dense ranks, embedding ranks."""
    everyone = tuple(range(size))
    if size == 1 or roles == "colocated":
        return everyone, everyone
    if roles == "split":
        return everyone[: size // 2], everyone[size // 2 :]
    return everyone[: size - 1], everyone[1:]


def placement_of(axis: str, size: int, holders: tuple[int, ...]) -> Placement:
    tiles = [tile for table in range(3) for tile in tiles_of(axis, table, holders)]
    return Placement(SHAPES, tuple(tiles), size)


def features_of(pooling: str) -> list[Feature]:
    """Two fields share a table; "mixed" has every pooling, and one table with all of them."""
    kinds = {"mixed": ("sum", "mean", "none", "sum")}.get(pooling, (pooling,) * 4)
    return [
        Feature(name, table, kind)
        for name, table, kind in zip("abcd", (0, 1, 0, 2), kinds, strict=True)
    ]


@dataclass
class Batch:
    ids: Array
    offsets: Array
    weights: Array | None
    size: int


def make_batch(
    features: list[Feature], kind: str, weighted: bool, seed: int, has_data: bool
) -> Batch:
    """Kinds: "one" id per bag, "many" (0 to 4, powers of two), "same" few ids, "empty" bags."""
    rng = np.random.default_rng(seed)
    size = 0 if not has_data or (kind == "empty" and seed % 2 == 0) else 5 + seed % 3
    ids: list[int] = []
    offsets = [0]
    for feature in features:
        rows = SHAPES[feature.table].rows
        for _ in range(size):
            length = {"one": 1, "empty": 0}.get(kind, int(rng.choice([0, 1, 2, 4])))
            limit = rows or 2**ID_BITS
            few = kind == "same" or feature.table == 2
            drawn = rng.integers(0, min(limit, 3) if few else limit, length)
            ids += drawn.tolist()
            offsets.append(len(ids))
    weights = rng.choice([0.5, 1.0, 2.0], len(ids)).astype(np.float32) if weighted else None
    return Batch(np.array(ids, np.int64), np.array(offsets, np.int64), weights, size)


def at(address: int, count: int, width: int, wire: str) -> Array:
    """View memory of another layer: (count, width) in the wire type."""
    dtype = np.dtype({"fp32": np.float32, "bf16": np.uint16, "fp16": np.float16}[wire])
    memory = (ctypes.c_char * (count * width * dtype.itemsize)).from_address(address)
    return np.frombuffer(memory, dtype).reshape(count, width)


def to_wire(x: Array, wire: str) -> Array:
    if wire != "bf16":
        return x.astype(np.float32 if wire == "fp32" else np.float16)
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_wire(x: Array, wire: str) -> Array:
    if wire != "bf16":
        return x.astype(np.float64)
    return (x.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


class HostSide:
    """Where the arrays of a rank's steps are: here, plain NumPy over the host's memory."""

    def place(self, array: Array) -> Any:
        return array

    def columns(self, placed: Any, stop: int) -> Any:
        return placed[:, :stop]

    def fetch(self, placed: Any) -> Array:
        return placed

    def write(self, address: int, rows: Array, wire: str) -> None:
        at(address, *rows.shape, wire)[:] = rows

    def read(self, address: int, count: int, width: int, wire: str) -> Array:
        return at(address, count, width, wire)


HOST = HostSide()


class Holder:
    """A rank's tiles, served from raw requests: rows out, gradients added up in float64."""

    def __init__(self, placement: Placement, rank: int, wire: str, side: HostSide = HOST) -> None:
        self.side = side
        self.tiles = placement.held_by(rank)
        self.size = placement.world_size
        self.wire = wire
        self.keys = [
            {place(t.table, t.buckets, k)[1]: k for k in range(rows) if self.holds(t, t.table, k)}
            if (rows := SHAPES[t.table].rows) is not None
            else None
            for t in self.tiles
        ]
        self.grads: dict[tuple[int, int, int], Array] = {}

    @staticmethod
    def holds(tile: Tile, table: int, key: int) -> bool:
        return tile.table == table and place(table, tile.buckets, key)[0] == tile.bucket

    def segments(self, routed: Routed) -> Iterator[tuple[int, Tile, list[list[int]], Any]]:
        """Yield (segment, tile, keys of each reply row, weights of each reply row)."""
        r = routed.request
        assert r.tile.tolist() == [t for t in range(len(self.tiles)) for _ in range(self.size)]
        bag = 0
        for s, t in enumerate(r.tile):
            tile, known = self.tiles[t], self.keys[t]
            first, last = int(r.first[s]), int(r.first[s + 1])
            positions = r.ids[first:last].tolist()
            keys = [known[p] if known is not None else p for p in positions]
            assert all(self.holds(tile, tile.table, key) for key in keys)
            weights = [1.0] * len(keys) if r.weights is None else r.weights[first:last].tolist()
            rows = int(r.bags[s + 1] - r.bags[s])
            if r.pooled[s]:
                lengths = r.lengths[bag : bag + rows].tolist()
                bag += rows
            else:
                assert len(set(keys)) == len(keys), "ids are de-duplicated before they travel"
                lengths = [1] * rows
            assert all(n > 0 for n in lengths)
            cuts = np.cumsum([0, *lengths]).tolist()
            assert cuts[-1] == len(keys)
            spans = list(pairwise(cuts))
            yield s, tile, [keys[a:b] for a, b in spans], [weights[a:b] for a, b in spans]

    def credits(self, routed: Routed) -> Iterator[tuple[Tile, int, list[tuple[int, Any]]]]:
        """Yield (tile, requester, (key, credit) of each id) per segment."""
        r = routed.request
        for s, tile, keys, _ in self.segments(routed):
            ids = [key for row in keys for key in row]
            told = [] if r.credits is None else r.credits[r.first[s] : r.first[s + 1]]
            yield tile, s % self.size, list(zip(ids, told, strict=True))

    def gather(self, routed: Routed, addresses: Any) -> None:
        for s, tile, keys, weights in self.segments(routed):
            assert (addresses[s] == 0) == (not routed.request.replies[s])
            if not keys or not addresses[s]:
                continue
            rows = [
                sum(
                    w * row(tile.table, k)[tile.start : tile.stop]
                    for k, w in zip(ks, ws, strict=True)
                )
                for ks, ws in zip(keys, weights, strict=True)
            ]
            self.side.write(int(addresses[s]), to_wire(np.array(rows), self.wire), self.wire)

    def update(self, routed: Routed, addresses: Any) -> None:
        for s, tile, keys, weights in self.segments(routed):
            if not keys:
                continue
            read = self.side.read(int(addresses[s]), len(keys), tile.dim, self.wire)
            got = from_wire(read, self.wire)
            for grad, ks, ws in zip(got, keys, weights, strict=True):
                for k, w in zip(ks, ws, strict=True):
                    slot = (tile.table, tile.start, k)
                    self.grads[slot] = self.grads.get(slot, np.zeros(tile.dim)) + w * grad


def expect_forward(features: list[Feature], batch: Batch) -> tuple[Any, list[Any]]:
    pooled, sequences = [], []
    for f, feature in enumerate(features):
        bags = []
        rows = np.zeros((0, SHAPES[feature.table].dim))
        for b in range(batch.size):
            first, last = batch.offsets[f * batch.size + b : f * batch.size + b + 2]
            weights = np.ones(last - first) if batch.weights is None else batch.weights[first:last]
            own = [
                w * row(feature.table, int(k))
                for k, w in zip(batch.ids[first:last], weights, strict=True)
            ]
            own = np.array(own).reshape(-1, rows.shape[1])
            rows = np.concatenate([rows, own])
            total = own.sum(axis=0)
            bags.append(total / max(len(own), 1) if feature.pooling == "mean" else total)
        if feature.pooling == "none":
            sequences.append(rows)
        else:
            pooled.append(np.array(bags).reshape(batch.size, rows.shape[1]))
    return np.concatenate([np.zeros((batch.size, 0)), *pooled], axis=1), sequences


def expect_credits(
    features: list[Feature], batch: Batch, credits: Array | None, tile: Tile, reply: str
) -> list[tuple[int, Any]]:
    """(key, credit) of each id that a batch asks of a tile; credits None: 1 per id."""
    total: dict[int, Any] = {}
    each: list[tuple[int, Any]] = []
    for f, feature in enumerate(features):
        for b in range(batch.size if feature.table == tile.table else 0):
            first, last = batch.offsets[f * batch.size + b : f * batch.size + b + 2]
            for key in batch.ids[first:last].tolist():
                if Holder.holds(tile, tile.table, key):
                    each.append((key, np.float32(1) if credits is None else credits[b]))
                    total[key] = total.get(key, np.float32(0)) + each[-1][1]
    if reply == "pooled":
        return each
    return [(key, np.float32(1) if credits is None else credit) for key, credit in total.items()]


def expect_grads(
    features: list[Feature],
    placement: Placement,
    replies: tuple[str, ...],
    wire: str,
    batches: list[tuple[Batch, Any, list[Any]]],
) -> dict[tuple[int, int], Any]:
    """(table, key) -> gradient of the whole row, rounded to the wire type where it travels."""
    total: dict[tuple[int, int], Any] = defaultdict(lambda: 0.0)
    for batch, grad, grad_sequences in batches:
        own: dict[tuple[int, int], Any] = defaultdict(lambda: 0.0)
        column, sequence = 0, iter(grad_sequences)
        for f, feature in enumerate(features):
            dim = SHAPES[feature.table].dim
            rows = next(sequence) if feature.pooling == "none" else None
            for b in range(batch.size):
                first, last = batch.offsets[f * batch.size + b : f * batch.size + b + 2]
                for i in range(first, last):
                    g = (
                        rows[i - batch.offsets[f * batch.size]]
                        if rows is not None
                        else grad[b, column : column + dim]
                    ).astype(np.float64)
                    g = g / (last - first) if feature.pooling == "mean" else g
                    w = 1.0 if batch.weights is None else float(batch.weights[i])
                    key = (feature.table, int(batch.ids[i]))
                    if replies[feature.table] == "rows":
                        own[key] += w * g
                    else:
                        total[key] += w * from_wire(to_wire(g, wire), wire)
            column += dim if feature.pooling != "none" else 0
        for key, g in own.items():
            total[key] += from_wire(to_wire(g, wire), wire)
    return total


def run_step(
    exchange: Exchange,
    holder: Holder,
    routed: Routed,
    features: list[Feature],
    batch: Batch,
    seed: int,
    dtype: Any = np.float32,
) -> tuple[Any, list[Any], Any, list[Any]]:
    """Forward and backward with random eighths as gradients."""
    side = holder.side
    holder.gather(routed, exchange.reply(routed))
    counts = np.diff(batch.offsets[:: max(batch.size, 1)]) if batch.size else [0] * len(features)
    wide = side.place(np.full((batch.size, exchange.output_dim + 3), 77, dtype))
    sequences = [
        side.place(np.full((int(n), SHAPES[f.table].dim), 77, dtype))
        for f, n in zip(features, counts, strict=True)
        if f.pooling == "none"
    ]
    exchange.forward(routed, side.columns(wide, exchange.output_dim), sequences)
    out, outs = side.fetch(wide), [side.fetch(s) for s in sequences]
    assert (out[:, exchange.output_dim :] == 77).all()
    rng = np.random.default_rng(seed)
    wire = "bf16" if dtype == np.uint16 else "fp16" if dtype == np.float16 else "fp32"
    grad = to_wire(rng.integers(-8, 9, (batch.size, exchange.output_dim)) / 8, wire)
    grads = [to_wire(rng.integers(-8, 9, s.shape) / 8, wire) for s in outs]
    placed = [side.place(g) for g in (grad, *grads)]
    holder.update(routed, exchange.backward(routed, placed[0], placed[1:]))
    return out[:, : exchange.output_dim], outs, grad, grads
