"""The exchange on ranks against one process that holds every row: equal, bit for bit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI
from oracle import (
    AXES,
    ID_BITS,
    ROLES,
    SHAPES,
    Batch,
    Holder,
    expect_credits,
    expect_forward,
    expect_grads,
    features_of,
    make_batch,
    mix,
    placement_of,
    roles_of,
    run_step,
)

from fourfold.comm.backend import Blocks
from fourfold.comm.errors import CommError, PlacementError
from fourfold.comm.exchange import Exchange
from fourfold.comm.mpi import MpiBackend
from fourfold.comm.placement import Placement
from fourfold.comm.route import Feature
from fourfold.comm.tile import Shape, Tile

pytestmark = pytest.mark.mpi

INPUTS = [
    *product(("mixed",), ("fp32", "bf16", "fp16"), (False, True), ("many", "same")),
    *product(("mixed",), ("fp32",), (False,), ("one", "empty")),
    ("sum", "fp32", True, "many"),
    ("sum", "bf16", False, "one"),
]
"""Pooling, wire, weighted, kind of batch."""


@pytest.fixture(scope="module")
def backend() -> Iterator[MpiBackend]:
    with MpiBackend(MPI.COMM_WORLD) as backend:
        yield backend


def exchange_of(
    backend: MpiBackend, placement: Placement, features: list[Feature], reply: str, **options: Any
) -> Exchange:
    sequence = {f.table for f in features if f.pooling == "none"}
    replies = tuple("rows" if t in sequence else reply for t in range(3))
    return Exchange(
        backend, placement, features, replies=replies, id_bits=(ID_BITS,) * 3, **options
    )


def check(
    backend: MpiBackend, axis: str, roles: str, pooling: str, reply: str, wire: str, kind: str,
    weighted: bool, steps: int = 1, threads: int = 1,
) -> None:  # fmt: skip
    """Run steps on all ranks; compare outputs, and every gradient on every holder."""
    world = MPI.COMM_WORLD
    dense, holders = roles_of(roles, world.size)
    features = features_of(pooling)
    placement = placement_of(axis, world.size, holders)
    exchange = exchange_of(backend, placement, features, reply, wire=wire, threads=threads)
    holder = Holder(placement, world.rank, wire)
    done = []
    for step in range(steps):
        seed = 10 * step + world.rank
        batch = make_batch(features, kind, weighted, seed, world.rank in dense)
        routed = exchange.route(batch.ids, batch.offsets, batch.weights, batch.size)
        assert routed.global_batch == world.allreduce(batch.size)
        out, sequences, *grads = run_step(exchange, holder, routed, features, batch, seed)
        expected, expected_sequences = expect_forward(features, batch)
        np.testing.assert_array_equal(out, expected)
        for got, want in zip(sequences, expected_sequences, strict=True):
            np.testing.assert_array_equal(got, want)
        done += world.allgather((batch, *grads))
    sequence = {f.table for f in features if f.pooling == "none"}
    replies = tuple("rows" if t in sequence else reply for t in range(3))
    want_grads = expect_grads(features, placement, replies, wire, done)
    keys = {key for key in want_grads for tile in holder.tiles if holder.holds(tile, *key)}
    assert {(table, key) for table, _, key in holder.grads} == keys
    for (table, start, key), grad in holder.grads.items():
        np.testing.assert_array_equal(grad, want_grads[table, key][start : start + grad.size])


@pytest.mark.parametrize("reply", ["rows", "pooled"])
@pytest.mark.parametrize("roles", ROLES)
@pytest.mark.parametrize("axis", AXES)
def test_one_process(backend: MpiBackend, axis: str, roles: str, reply: str) -> None:
    """Any placement, any roles, any wire type compute what one process computes."""
    if roles != "colocated" and backend.size == 1:
        pytest.skip("one rank has one role")
    for pooling, wire, weighted, kind in INPUTS:
        check(backend, axis, roles, pooling, reply, wire, kind, weighted)


@pytest.mark.parametrize("pooling", ["mean", "none"])
@pytest.mark.parametrize("axis", AXES)
def test_steps(backend: MpiBackend, axis: str, pooling: str) -> None:
    """Several steps reuse buffers; several threads share the work."""
    for reply, weighted in product(("rows", "pooled"), (False, True)):
        check(backend, axis, "colocated", pooling, reply, "fp32", "many", weighted, 3, threads=3)


@pytest.mark.parametrize("reply", ["rows", "pooled"])
@pytest.mark.parametrize("axis", AXES)
def test_credits(backend: MpiBackend, axis: str, reply: str) -> None:
    """Holders learn what the appearances of each id count for, of the tables that ask for it."""
    world = MPI.COMM_WORLD
    wanted = (True, False, True)
    for pooling, kind, roles in product(("mixed", "sum"), ("many", "same", "one", "empty"), ROLES):
        if pooling == "mixed" and reply == "pooled":
            continue
        dense, holders = roles_of(roles, world.size)
        features = features_of(pooling)
        placement = placement_of(axis, world.size, holders)
        exchange = exchange_of(backend, placement, features, reply, credits=wanted)
        holder = Holder(placement, world.rank, "fp32")
        for step, weighted in enumerate((False, True)):
            seed = 10 * step + world.rank
            batch = make_batch(features, kind, weighted, seed, world.rank in dense)
            credits = np.random.default_rng(seed).random(batch.size, np.float32) * 9
            given = credits if batch.size else None
            routed = exchange.route(batch.ids, batch.offsets, batch.weights, batch.size, given)
            batches = world.allgather((batch, credits))
            asked_for = any(wanted[tile.table] for tile in holder.tiles)
            told = routed.request.credits
            assert (routed.request.credits is not None) == (
                asked_for and routed.request.ids.size > 0
            )
            for tile, requester, told in holder.credits(routed) if asked_for else ():
                asked, earned = batches[requester]
                want = earned if wanted[tile.table] else None
                assert told == expect_credits(features, asked, want, tile, reply)
            out, *_ = run_step(exchange, holder, routed, features, batch, seed)
            np.testing.assert_array_equal(out, expect_forward(features, batch)[0])


def test_no_credits_cost_nothing(backend: MpiBackend) -> None:
    """4 bytes per id of a table that takes them; else the same bytes as without any."""
    features = [Feature("a", 0, "sum"), Feature("b", 1, "sum")]
    placement = placement_of("table", backend.size, (0,))
    rng = np.random.default_rng(backend.rank)
    ids = np.concatenate([rng.permutation(50)[:48], rng.permutation(999)[:48]])
    sent = []
    for wanted in (None, (False, False, True), (True, False, False)):
        exchange = exchange_of(backend, placement, features, "rows", credits=wanted)
        credits = np.ones(48, np.float32) if wanted else None
        routed = exchange.route(ids, np.arange(97), None, 48, credits)
        messages = routed.route.message_sent.tobytes()
        sent.append((routed.stats.id_bytes, messages, routed.route.header_sent.tobytes()))
        assert (routed.request.credits is None) == (backend.rank != 0 or wanted is None)
    assert sent[0][0] == sent[1][0]
    assert sent[0][2] == sent[1][2] == sent[2][2]
    assert sent[0][1][: 48 * 4] == sent[1][1][: 48 * 4] == sent[2][1][: 48 * 4]
    assert sent[2][0] - sent[0][0] == (4 * 48 if backend.rank else 0)


def big_batch(features: list[Feature], seed: int) -> Batch:
    """Random floats, so that the order of sums shows in the last bits."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 9, len(features) * 700)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.concatenate(
        [
            rng.zipf(1.2, offsets[(f + 1) * 700] - offsets[f * 700]) % (SHAPES[x.table].rows or 999)
            for f, x in enumerate(features)
        ]
    )
    weights = rng.random(ids.size, np.float32)
    return Batch(ids.astype(np.int64), offsets.astype(np.int64), weights, 700)


@pytest.mark.parametrize("reply", ["rows", "pooled"])
@pytest.mark.parametrize("axis", ["row", "column", "data"])
def test_threads_do_not_change_a_bit(backend: MpiBackend, axis: str, reply: str) -> None:
    features = features_of("sum")
    batch = big_batch(features, backend.rank)
    placement = placement_of(axis, backend.size, tuple(range(backend.size)))
    rng = np.random.default_rng(backend.rank)
    results = []
    for threads in (1, 4):
        exchange = exchange_of(backend, placement, features, reply, threads=threads)
        holder = Holder(placement, backend.rank, "fp32")
        routed = exchange.route(batch.ids, batch.offsets, batch.weights, batch.size)
        holder.gather(routed, exchange.reply(routed))
        out = np.empty((batch.size, exchange.output_dim), np.float32)
        exchange.forward(routed, out)
        if not results:
            grad = rng.standard_normal(out.shape, np.float32)
        holder.update(routed, exchange.backward(routed, grad))
        results.append((out, holder.grads))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert results[0][1].keys() == results[1][1].keys()
    for key, value in results[0][1].items():
        np.testing.assert_array_equal(value, results[1][1][key])


def test_rows_replies_do_not_depend_on_the_placement(backend: MpiBackend) -> None:
    """Rows are summed in the order of the bag's ids, wherever they come from."""
    features = features_of("sum")
    batch = big_batch(features, backend.rank)
    outs = []
    for axis in AXES:
        placement = placement_of(axis, backend.size, tuple(range(backend.size)))
        exchange = exchange_of(backend, placement, features, "rows")
        holder = Holder(placement, backend.rank, "fp32")
        routed = exchange.route(batch.ids, batch.offsets, batch.weights, batch.size)
        holder.gather(routed, exchange.reply(routed))
        outs.append(np.empty((batch.size, exchange.output_dim), np.float32))
        exchange.forward(routed, outs[-1])
    for out in outs[1:]:
        np.testing.assert_array_equal(out, outs[0])


@pytest.mark.parametrize("dtype", [np.float16, np.uint16])
def test_half_outputs(backend: MpiBackend, dtype: Any) -> None:
    """Outputs and gradients in 16 bits: the same values, rounded once."""
    features = features_of("mixed")
    placement = placement_of("grid", backend.size, tuple(range(backend.size)))
    exchange = exchange_of(backend, placement, features, "pooled")
    batch = make_batch(features, "many", False, backend.rank, True)
    results = []
    for kind in (np.float32, dtype):
        holder = Holder(placement, backend.rank, "fp32")
        routed = exchange.route(batch.ids, batch.offsets, None, batch.size)
        results.append((run_step(exchange, holder, routed, features, batch, 3, kind), holder.grads))
    (full, *_), (half, *_) = results[0][0], results[1][0]
    as_float = (
        half.astype(np.float32)
        if dtype == np.float16
        else (half.astype(np.uint32) << 16).view(np.float32)
    )
    np.testing.assert_array_equal(as_float, full)
    for key, value in results[0][1].items():
        np.testing.assert_array_equal(value, results[1][1][key])


def test_routing_ahead_on_a_thread(backend: MpiBackend) -> None:
    """Batches b+1, b+2, ... are routed on a thread while the main thread steps through b."""
    if not backend.can_overlap:
        pytest.skip("this MPI does not give THREAD_MULTIPLE")
    features = features_of("mixed")
    placement = placement_of("row", backend.size, tuple(range(backend.size)))
    exchange = exchange_of(backend, placement, features, "pooled")
    batches = [make_batch(features, "many", True, 10 * s + backend.rank, True) for s in range(12)]
    routed: list[Any] = []
    ready = [threading.Event() for _ in batches]

    def route_all() -> None:
        for batch, event in zip(batches, ready, strict=True):
            routed.append(exchange.route(batch.ids, batch.offsets, batch.weights, batch.size))
            event.set()

    router = threading.Thread(target=route_all)
    router.start()
    holder = Holder(placement, backend.rank, "fp32")
    for step, (batch, event) in enumerate(zip(batches, ready, strict=True)):
        event.wait()
        out, *_ = run_step(exchange, holder, routed[step], features, batch, step)
        np.testing.assert_array_equal(out, expect_forward(features, batch)[0])
    router.join()


def test_memory_is_reused_only_when_nobody_looks(backend: MpiBackend) -> None:
    features = features_of("sum")
    placement = placement_of("row", backend.size, tuple(range(backend.size)))
    exchange = exchange_of(backend, placement, features, "rows")
    batch = make_batch(features, "many", False, backend.rank, True)
    first = exchange.route(batch.ids, batch.offsets, None, batch.size)
    ids, kept = first.request.ids, first.request.ids.copy()
    where = first.route.message_sent.ctypes.data
    del first
    for seed in range(3):
        other = make_batch(features, "many", False, 100 + seed, True)
        exchange.route(other.ids, other.offsets, None, other.size)

    np.testing.assert_array_equal(ids, kept)
    del ids
    again = exchange.route(batch.ids, batch.offsets, None, batch.size)
    assert again.route.message_sent.ctypes.data == where


def test_all_ranks_out_of_data(backend: MpiBackend) -> None:
    features = features_of("mixed")
    placement = placement_of("grid", backend.size, tuple(range(backend.size)))
    exchange = exchange_of(backend, placement, features, "rows")
    routed = exchange.route(np.empty(0, np.int64), np.zeros(1, np.int64), None, 0)
    assert routed.global_batch == 0
    assert routed.request.ids.size == 0
    exchange.reply(routed)
    nothing = np.empty((0, exchange.output_dim), np.float32)
    sequences = [np.empty((0, SHAPES[f.table].dim), np.float32) for f in features[2:3]]
    exchange.forward(routed, nothing, sequences)
    exchange.backward(routed, nothing, sequences)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-1, r"feature 'a', sample 1: id -1 is not in \[0, 50\): table 'users' has 50 rows"),
        (50, r"feature 'a', sample 1: id 50 is not in \[0, 50\)"),
        (2**62, rf"feature 'a', sample 1: id {2**62} is not in"),
    ],
)
def test_bad_id(backend: MpiBackend, value: int, text: str) -> None:
    """The rank with the bad id says what is wrong; the others say which rank. Nobody hangs."""
    features = [Feature("a", 0, "sum"), Feature("b", 1, "sum")]
    placement = placement_of("table", backend.size, tuple(range(backend.size)))
    exchange = exchange_of(backend, placement, features, "rows")
    guilty = backend.size - 1
    ids = np.array([3, value if backend.rank == guilty else 4, 0, 0], np.int64)
    offsets = np.arange(5, dtype=np.int64)
    if backend.rank == guilty:
        with pytest.raises(ValueError, match=text):
            exchange.route(ids, offsets, None, 2)
    else:
        with pytest.raises(CommError, match=f"rank {guilty} refused its batch"):
            exchange.route(ids, offsets, None, 2)
    good = exchange.route(np.array([3, 4, 0, 0], np.int64), offsets, None, 2)
    assert good.global_batch == 2 * backend.size


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"ids": np.array([0, 0, 2**ID_BITS, 0])}, ValueError, "feature 'b', sample 0: id"),
        ({"ids": np.arange(4, dtype=np.int32)}, TypeError, "incompatible"),
        ({"offsets": np.arange(4)}, ValueError, r"2 features \* 2 samples \+ 1 values, got 4"),
        ({"offsets": np.array([0, 2, 1, 3, 4])}, ValueError, "and fall somewhere"),
        ({"offsets": np.array([0, 1, 2, 3, 3])}, ValueError, "number of ids"),
        ({"weights": np.ones(3, np.float32)}, ValueError, "one per id"),
        ({"credits": None}, ValueError, r"credits: expected one per sample \(2\), got 0"),
        ({"credits": np.ones(4, np.float32)}, ValueError, r"one per sample \(2\), got 4"),
        ({"credits": np.ones(2)}, TypeError, "incompatible"),
        ({"credits": np.array([0, -1], np.float32)}, ValueError, "credits: sample 1 has -1"),
        ({"credits": np.array([np.nan, 0], np.float32)}, ValueError, "credits: sample 0 has nan"),
        ({"credits": np.array([np.inf, 0], np.float32)}, ValueError, "credits: sample 0 has inf"),
    ],
)
def test_bad_batch(backend: MpiBackend, change: dict[str, Any], error: type, text: str) -> None:
    features = [Feature("a", 0, "sum"), Feature("b", 1, "sum")]
    placement = placement_of("table", backend.size, tuple(range(backend.size)))
    exchange = exchange_of(backend, placement, features, "rows", credits=(True, False, False))
    batch = {"ids": np.zeros(4, np.int64), "offsets": np.arange(5), "weights": None, "batch": 2}
    batch["credits"] = np.ones(2, np.float32)
    with pytest.raises(error, match=text):
        exchange.route(**(batch | change))


def test_credits_that_nobody_wants(backend: MpiBackend) -> None:
    placement = placement_of("table", backend.size, tuple(range(backend.size)))
    exchange = exchange_of(backend, placement, [Feature("a", 0, "sum")], "rows")
    with pytest.raises(ValueError, match="none, for no table of this exchange takes them, got 1"):
        exchange.route(np.zeros(1, np.int64), np.arange(2), None, 1, np.ones(1, np.float32))


def test_hash_ids(backend: MpiBackend) -> None:
    """Any 64-bit id is taken: hashed to [0, 2**id_bits) or [0, rows)."""
    shapes = (Shape("open", 4, None), Shape("closed", 4, 1000))
    tiles = tuple(Tile(t, 0, 1, 0, 4, (t % backend.size,)) for t in range(2))
    exchange = Exchange(
        backend, Placement(shapes, tiles, backend.size),
        [Feature("a", 0, "sum"), Feature("b", 1, "sum")],
        replies=("rows", "rows"), id_bits=(52, 52), hash_ids=(True, True),
    )  # fmt: skip
    raw = [-5, 2**63 - 1, 0, 7, -(2**63)]
    ids = np.array(raw * 2, np.int64)
    routed = exchange.route(ids, np.arange(11), None, 5)
    hashed = [mix(x & (2**64 - 1)) for x in raw]
    expected = {0: [h >> 12 for h in hashed], 1: [h * 1000 >> 64 for h in hashed]}
    held = [t for t in range(2) if t % backend.size == backend.rank]
    first = routed.request.first
    for j, table in enumerate(held):
        for peer in range(backend.size):
            s = j * backend.size + peer
            assert routed.request.ids[first[s] : first[s + 1]].tolist() == expected[table]


def test_ranks_must_agree(backend: MpiBackend) -> None:
    if backend.size == 1:
        pytest.skip("one rank agrees with itself")
    placement = placement_of("table", backend.size, tuple(range(backend.size)))
    name = "other" if backend.rank == 1 else "a"
    with pytest.raises(CommError, match="all ranks must build the exchange from the same job"):
        Exchange(backend, placement, [Feature(name, 0, "sum")], replies=("rows",) * 3)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"replies": ("rows",)}, ValueError, r"one per table \(3\), got 1"),
        ({"replies": ("rows", "rows", "both")}, ValueError, "table 'tiny': reply is"),
        ({"wire": "fp8"}, ValueError, "expected one of fp32, bf16, fp16"),
        ({"credits": (True,)}, ValueError, r"credits: expected one per table \(3\), got 1"),
        ({"id_bits": (64,) * 3}, ValueError, "table 'words': id_bits must be 1 to 63"),
        ({"features": [Feature("a", 9, "sum")]}, ValueError, "table 9 does not exist"),
        ({"features": [Feature("a", 0, "none")], "replies": ("pooled",) * 3}, ValueError, "'none'"),
        ({"placement": Placement(SHAPES, (), 99)}, PlacementError, "for 99 ranks"),
    ],
)
def test_bad_plan(
    backend: MpiBackend, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    arguments: dict[str, Any] = {
        "placement": placement_of("table", backend.size, tuple(range(backend.size))),
        "features": [Feature("a", 0, "sum")],
        "replies": ("rows",) * 3,
    }
    with pytest.raises(error, match=text):
        Exchange(backend, **(arguments | options))


def test_bad_outputs(backend: MpiBackend) -> None:
    """Wrong arrays are refused after the collective, so the ranks stay in step."""
    features = [Feature("a", 0, "sum")]
    placement = placement_of("table", backend.size, tuple(range(backend.size)))
    exchange = exchange_of(backend, placement, features, "rows")
    routed = exchange.route(np.array([1, 2]), np.arange(3), None, 2)
    holder = Holder(placement, backend.rank, "fp32")
    holder.gather(routed, exchange.reply(routed))
    for out, text in (
        (np.empty((2, 9), np.float32), r"expected shape \(2, 8\), got \(2, 9\)"),
        (np.empty((8, 2), np.float32).T, "contiguous"),
        (np.empty((2, 8), np.float64), "expected float32"),
    ):
        with pytest.raises(ValueError, match=text):
            exchange.forward(routed, out)
    fixed = np.empty((2, 8), np.float32)
    fixed.flags.writeable = False
    with pytest.raises(TypeError, match="incompatible"):
        exchange.forward(routed, fixed)
    with pytest.raises(ValueError, match="expected 0 sequences"):
        exchange.forward(routed, np.empty((2, 8), np.float32), [np.empty((2, 8), np.float32)])


def test_traffic(backend: MpiBackend) -> None:
    """Bytes are those of the messages; one-hot ids that repeat cost less than TorchRec's."""
    tiles = (Tile(0, 0, 1, 0, 8, (0,)),)
    placement = Placement((Shape("t", 8, 10),), tiles, backend.size)
    exchange = Exchange(backend, placement, [Feature("f", 0, "sum")], replies=("rows",))
    ids = np.array([1, 2, 1, 1, 2, 1], np.int64)
    stats = exchange.route(ids, np.arange(7), None, 6).stats
    away = backend.rank != 0
    assert (stats.lookups, stats.rows) == (6, 2)
    assert stats.reply_bytes == stats.gradient_bytes == (64 if away else 0)  # 2 rows of 32 bytes
    headers = 64 * (backend.size - 1)
    assert stats.id_bytes == headers + (64 if away else 0)
    assert stats.torchrec_id_bytes == (6 * 8 + 6 * 4 if away else 0)
    assert stats.torchrec_reply_bytes == stats.torchrec_gradient_bytes == (6 * 32 if away else 0)


def test_a_block_is_a_block() -> None:
    from fourfold.comm import _native, backend

    assert _native.BLOCK == backend.BLOCK
    assert Blocks.__slots__ == ("memory", "counts", "starts")
