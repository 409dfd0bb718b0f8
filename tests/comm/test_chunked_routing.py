"""However many threads route a batch, and wherever its tables are cut, the route is the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fourfold.comm._native import Buffer, Route, Router

DIM = 4
THREADS = (1, 2, 3, 7, 16)
WHOLE = 2**31 - 1
IDS = {
    "any": st.integers(0, 2**40 - 1),
    "few": st.integers(0, 5),
    "one": st.just(3),
    "skewed": st.integers(0, 39).map(lambda i: i * i // 40),
}


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """Tables of every kind, several features a table, and one batch."""
    tables, tiles = [], []
    for t in range(draw(st.integers(1, 3))):
        dynamic, hashed, pooled, credited = (draw(st.booleans()) for _ in range(4))
        limit = 2**52 if dynamic else draw(st.sampled_from([40, 3000, 2**40]))
        tables.append((f"t{t}", DIM, limit, dynamic, hashed, pooled, credited))
        tiles += [(t, b, 0, DIM, [0]) for b in range(draw(st.integers(1, 3)))]
    features = []
    for f in range(draw(st.integers(1, 4))):
        table = draw(st.integers(0, len(tables) - 1))
        features.append((f"f{f}", table, draw(st.integers(0, 1 if tables[table][5] else 2))))
    batch = draw(st.integers(0, 12))
    ids: list[int] = []
    offsets = [0]
    for _, table, _ in features:
        limit, hashed = tables[table][2], tables[table][4]
        key = IDS[draw(st.sampled_from(sorted(IDS)))]
        longest = draw(st.sampled_from([1, 3, 20]))
        for _ in range(batch):
            least = longest if longest == 1 and draw(st.booleans()) else 0
            bag = draw(st.lists(key, min_size=least, max_size=longest))
            ids += bag if hashed else [i % limit for i in bag]
            offsets.append(len(ids))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    credits = None
    if batch and any(table[6] for table in tables):
        credits = rng.random(batch, np.float32)
    weights = rng.random(len(ids), np.float32) if draw(st.booleans()) else None
    return {
        "router": (tables, features, tiles),
        "batch": (np.array(ids, np.int64), np.array(offsets), weights, batch, credits),
    }


def routed(
    case: dict[str, Any], threads: int, chunk: int, *, before: dict[str, Any] | None = None
) -> tuple[Router, Route]:
    router = Router(0, 1, threads, 0, *case["router"], chunk=chunk)
    if before is not None:
        router.route(*before["batch"])
    route = router.route(*case["batch"])
    router.accept(route)
    router.unpack(route)
    return router, route


def step(case: dict[str, Any], router: Router, route: Route) -> list[NDArray[Any]]:
    """Outputs and gradients of random numbers: their bits depend on the order of every sum."""
    features = case["router"][1]
    offsets, batch = case["batch"][1], case["batch"][3]
    rng = np.random.default_rng(5)
    got, sent = Buffer().reserve(route.reply_got[2]), Buffer().reserve(route.gradient_sent[2])
    got.view(np.float32)[:] = rng.random(got.size // 4, np.float32)
    sent[:] = 0
    lengths = [
        int(offsets[(f + 1) * batch] - offsets[f * batch])
        for f, (_, _, pooling) in enumerate(features)
        if pooling == 2
    ]
    out = np.zeros((batch, router.output_dim), np.float32)
    sequences = [np.zeros((n, DIM), np.float32) for n in lengths]
    router.pool(route, got, out, sequences)
    grad = rng.random(out.shape, np.float32)
    grads = [rng.random(s.shape, np.float32) for s in sequences]
    router.spread(route, grad, grads, sent)
    return [out, *sequences, sent]


def arrays(case: dict[str, Any], router: Router, route: Route) -> list[NDArray[Any]]:
    names = ("ids", "first", "bags", "lengths", "weights", "credits")
    copies = [getattr(route, name).copy() for name in names]
    layouts = [np.concatenate(route.messages_sent[:2]), np.array(route.traffic)]
    return [*copies, *layouts, *step(case, router, route)]


def assert_equal(case: dict[str, Any], want: list[NDArray[Any]], got: list[NDArray[Any]]) -> None:
    for a, b in zip(want, got, strict=True):
        np.testing.assert_array_equal(a.view(np.uint8), b.view(np.uint8), str(case))


@given(case=cases(), chunk=st.integers(1, 30), threads=st.sampled_from(THREADS[1:]))
def test_cut_anywhere(case: dict[str, Any], chunk: int, threads: int) -> None:
    want = arrays(case, *routed(case, 1, WHOLE))
    assert_equal(case, want, arrays(case, *routed(case, threads, chunk)))


@given(case=cases(), other=cases())
def test_memory_is_reused(case: dict[str, Any], other: dict[str, Any]) -> None:
    """What another batch has left behind changes nothing."""
    other["router"] = case["router"]
    n = len(case["router"][1]) * 9
    rng = np.random.default_rng(1)
    credits = rng.random(9, np.float32) if any(t[6] for t in case["router"][0]) else None
    other["batch"] = (rng.integers(0, 40, 2 * n), np.arange(n + 1) * 2, None, 9, credits)
    want = arrays(case, *routed(case, 1, WHOLE))
    assert_equal(case, want, arrays(case, *routed(case, 3, 4, before=other)))


def long_case(kind: str, *, pooled: bool, dynamic: bool) -> dict[str, Any]:
    """A long table and short ones: two features each, bags of 0 to 60 ids, two buckets."""
    rng = np.random.default_rng(11)
    batch, limit = 300, 2**52 if dynamic else 100_000
    tables = [(f"t{t}", DIM, limit, dynamic, False, pooled, True) for t in range(3)]
    features = [(f"f{f}", f % 3, f // 3) for f in range(6)]
    tiles = [(t, b, 0, DIM, [0]) for t in range(3) for b in range(2)]
    lengths = [rng.integers(0, 61 if f % 3 == 0 else 3, batch) for f in range(6)]
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    ids = {
        "distinct": lambda n: rng.permutation(100_000)[:n],
        "duplicates": lambda n: rng.zipf(1.3, n) % 100_000,
        "one": lambda n: np.full(n, 77),
    }[kind](int(offsets[-1]))
    weights = rng.random(ids.size, np.float32)
    credits = rng.random(batch, np.float32)
    return {
        "router": (tables, features, tiles),
        "batch": (ids.astype(np.int64), offsets, weights, batch, credits),
    }


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("pooled", [False, True], ids=["rows", "pooled"])
@pytest.mark.parametrize("kind", ["distinct", "duplicates", "one"])
def test_any_number_of_threads(kind: str, pooled: bool, dynamic: bool) -> None:
    case = long_case(kind, pooled=pooled, dynamic=dynamic)
    want = arrays(case, *routed(case, 1, WHOLE))
    for threads in THREADS:
        for chunk in (1, 300):
            assert_equal(case, want, arrays(case, *routed(case, threads, chunk)))


@pytest.mark.parametrize("pooled", [False, True], ids=["rows", "pooled"])
@pytest.mark.parametrize("where", [0, 7_000, -1])
def test_bad_id_in_a_chunk(pooled: bool, where: int) -> None:
    """Names the first bad id; the router lives on."""
    case = long_case("duplicates", pooled=pooled, dynamic=False)
    router = Router(0, 1, 3, 0, *case["router"], chunk=100)
    ids, *rest = case["batch"]
    bad = ids.copy()
    bad[where] = 100_000
    bad[-1] = -1 if where != -1 else 100_000
    bag = int(np.searchsorted(rest[0], where % ids.size, "right")) - 1
    sample = f"feature 'f{bag // 300}', sample {bag % 300}: id 100000 is not"
    with pytest.raises(ValueError, match=sample):
        router.route(bad, *rest)
    route = router.route(*case["batch"])
    router.accept(route)
    router.unpack(route)
    assert_equal(case, arrays(case, *routed(case, 1, WHOLE)), arrays(case, router, route))


@pytest.mark.parametrize("threads", [1, 3])
def test_long_messages(threads: int) -> None:
    """Ids, lengths and values of a message that several threads write and read."""
    rng = np.random.default_rng(2)
    batch = 20_000
    lengths = rng.integers(0, 12, batch)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(0, 2**40, int(offsets[-1]))
    weights, credits = rng.random(ids.size, np.float32), rng.random(batch, np.float32)
    tables = [
        ("t", DIM, 2**52, True, False, True, True),
        ("u", DIM, 2**52, True, False, True, False),
    ]
    features = [("a", 0, 0), ("b", 1, 0)]
    router = Router(0, 1, threads, 0, tables, features, [(t, 0, 0, DIM, [0]) for t in range(2)])
    route = router.route(
        np.concatenate([ids, ids]),
        np.concatenate([offsets, offsets[1:] + ids.size]),
        np.concatenate([weights, weights]),
        batch,
        credits,
    )
    router.accept(route)
    router.unpack(route)
    np.testing.assert_array_equal(route.ids, np.concatenate([ids, ids]))
    np.testing.assert_array_equal(route.lengths, np.tile(lengths[lengths > 0], 2))
    np.testing.assert_array_equal(route.weights, np.concatenate([weights, weights]))
    earned = np.repeat(credits, lengths)
    np.testing.assert_array_equal(route.credits, np.concatenate([earned, np.ones_like(earned)]))
