"""The pad against a dictionary: any request gives what a dict of rows would."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourfold.storage import (
    FTRL,
    SGD,
    Adam,
    Pad,
    RowSpec,
    RowWiseAdagrad,
    Segment,
    SegmentedRequest,
    Uniform,
    _native,
)

LR = 0.25
WIRES = {"fp32": np.float32, "bf16": np.uint16, "fp16": np.float16}


def spec_of(table: int, rows: int | None, dim: int, **changes: Any) -> RowSpec:
    fields = {"optimizer": SGD(), "init": Uniform(1.0), "seed": 5} | changes
    return RowSpec(table=table, name=f"t{table}", dim=dim, rows=rows, **fields)


def to_float(rows: np.ndarray, wire: str) -> np.ndarray:
    if wire == "bf16":
        return _native.widen(rows.ravel(), 1).reshape(rows.shape)
    return rows.astype(np.float32)


def to_wire(rows: np.ndarray, wire: str) -> np.ndarray:
    if wire == "bf16":
        return _native.narrow(rows.ravel(), 1).reshape(rows.shape)
    return rows.astype(WIRES[wire])


def reply_rows(segment: Segment) -> int:
    return len(segment.ids) if segment.lengths is None else len(segment.lengths)


def gather(
    pad: Pad,
    request: SegmentedRequest,
    segments: list[Segment],
    wire: str = "fp32",
    train: bool = False,
    ticket: Any = None,
) -> list[np.ndarray]:
    """Reply rows of each segment; memory around them must stay as it was."""
    dims = [pad.specs[s.tile].dim for s in segments]
    rooms = [
        np.full((reply_rows(s) + 2, d), 7, WIRES[wire]) for s, d in zip(segments, dims, strict=True)
    ]
    own = ticket is None
    ticket = pad.plan(request, train) if own else ticket
    pad.gather(ticket, request.addresses([room[1:-1] for room in rooms]), wire)
    if own:
        pad.release(ticket)
    for segment, room in zip(segments, rooms, strict=True):
        assert (room[[0, -1]] == 7).all()
        if not segment.reply:
            assert (room == 7).all()
    return [room[1:-1] for room in rooms]


@dataclass
class Model:
    """Rows as a dictionary per tile, SGD."""

    pad: Pad
    rows: list[dict[int, np.ndarray]]

    @classmethod
    def of(cls, pad: Pad) -> "Model":
        return cls(pad, [{} for _ in pad.specs])

    def true_id(self, tile: int, position: int) -> int:
        spec = self.pad.specs[tile]
        if spec.dynamic:
            return position
        at = np.array([position], np.int64)
        return int(_native.id_of(at, spec.table, spec.bucket, spec.buckets)[0])

    def row(self, tile: int, position: int) -> np.ndarray:
        known = self.rows[tile].get(position)
        if known is not None:
            return known
        spec = replace(self.pad.specs[tile], bucket=0, buckets=1)
        fresh = Pad([spec])
        return fresh.weights(0, np.array([self.true_id(tile, position)]))[0]

    def bag(self, segment: Segment) -> list[tuple[int, int, float]]:
        """(reply row, position, weight) of every id."""
        lengths = np.ones(len(segment.ids), int) if segment.lengths is None else segment.lengths
        row = np.repeat(np.arange(len(lengths)), lengths)
        weights = np.ones(len(row), np.float32) if segment.weights is None else segment.weights
        return list(zip(row.tolist(), segment.ids.tolist(), weights.tolist(), strict=True))

    def reply(self, segment: Segment) -> np.ndarray:
        out = np.zeros((reply_rows(segment), self.pad.specs[segment.tile].dim))
        for row, position, weight in self.bag(segment):
            out[row] += weight * self.row(segment.tile, position)
        return out

    def update(self, segments: list[Segment], gradients: list[np.ndarray]) -> None:
        total: dict[tuple[int, int], np.ndarray] = {}
        for segment, gradient in zip(segments, gradients, strict=True):
            for row, position, weight in self.bag(segment):
                key = (segment.tile, position)
                total[key] = total.get(key, 0) + weight * gradient[row].astype(np.float64)
        for (tile, position), gradient in total.items():
            self.rows[tile][position] = self.row(tile, position) - LR * gradient


def belongs(spec: RowSpec, id: int) -> bool:
    at = np.array([id], np.int64)
    return bool(_native.bucket_of(at, spec.table, spec.buckets, spec.dynamic)[0] == spec.bucket)


@st.composite
def specs(draw: st.DrawFn) -> list[RowSpec]:
    found = []
    for table in range(draw(st.integers(1, 3))):
        rows = draw(st.one_of(st.none(), st.integers(1, 60)))
        dims = draw(st.lists(st.sampled_from([1, 5, 8, 16, 24, 64]), min_size=1, max_size=2))
        buckets = draw(st.integers(1, 3))
        for part, dim in enumerate(dims):
            bucket = draw(st.integers(0, buckets - 1))
            found.append(
                spec_of(table, rows, dim, column=10 * part, bucket=bucket, buckets=buckets)
            )
    return found


@st.composite
def segments(draw: st.DrawFn, of: list[RowSpec]) -> list[Segment]:
    found = []
    for tile, spec in enumerate(of):
        for _ in range(draw(st.integers(0, 3))):
            if spec.rows is None:
                ids = st.one_of(st.integers(0, 30), st.integers(0, 2**55)).filter(
                    lambda id, spec=spec: belongs(spec, id)
                )
            else:
                most = _native.bucket_rows(spec.rows, spec.table, spec.bucket, spec.buckets)
                if most == 0:
                    continue
                ids = st.integers(0, most - 1)
            lengths = None
            weights = None
            if draw(st.booleans()):
                counts = draw(st.lists(st.integers(0, 4), max_size=6))
                chosen = [draw(ids) for _ in range(sum(counts))]
                lengths = np.array(counts, np.int32)
                if draw(st.booleans()):
                    weights = np.array(
                        [draw(st.sampled_from([0.0, 0.5, -2.0])) for _ in chosen], np.float32
                    )
            else:
                chosen = draw(st.lists(ids, max_size=12, unique=True))
            found.append(
                Segment(tile, np.array(chosen, np.int64), lengths, weights, draw(st.booleans()))
            )
    return found


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from([1, 2, 3]), st.integers(0, 2**32))
def test_any_request_against_a_dictionary(data: st.DataObject, threads: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pad = Pad(data.draw(specs()), threads=threads)
    model = Model.of(pad)
    for step in range(1, 4):
        asked = data.draw(segments(list(pad.specs)))
        request = SegmentedRequest.of(asked)
        train = data.draw(st.booleans())
        wire = data.draw(st.sampled_from(sorted(WIRES)))
        ticket = pad.plan(request, train)
        distinct = {(s.tile, i) for s in asked for i in s.ids.tolist()}
        unseen = [(t, i) for t, i in distinct if i not in model.rows[t]]
        assert ticket.rows == len(request.ids)
        assert ticket.new == (len(unseen) if train else 0)
        assert (ticket.missing > 0) == (not train and bool(unseen))
        replies = gather(pad, request, asked, wire, ticket=ticket)
        for segment, reply in zip(asked, replies, strict=True):
            if segment.reply:
                close = {"fp32": 1e-5, "bf16": 1.5e-2, "fp16": 2e-3}[wire]
                expected = model.reply(segment)
                np.testing.assert_allclose(to_float(reply, wire), expected, rtol=close, atol=close)
        if train:
            assert ticket.unique == len(distinct)
            gradients = [
                to_wire(rng.standard_normal(reply.shape).astype(np.float32), wire)
                for reply in replies
            ]
            pad.update(ticket, request.addresses(gradients), wire, LR, step)
            model.update(asked, [to_float(g, wire) for g in gradients])
        pad.release(ticket)
        for tile, spec in enumerate(pad.specs):
            rows = model.rows[tile]
            assert pad.tile_rows(tile) == len(rows)
            seen = {
                i: r["weights"]
                for ids, chunk in pad.scan(tile, 5)
                for i, r in zip(ids.tolist(), chunk, strict=True)
            }
            assert set(seen) == {model.true_id(tile, p) for p in rows}
            for position, row in rows.items():
                np.testing.assert_allclose(
                    seen[model.true_id(tile, position)],
                    row,
                    rtol=1e-4,
                    atol=1e-4,
                    err_msg=spec.name,
                )


def busy_pad(threads: int, rows: int | None, dtype: str, optimizer: Any, dim: int) -> np.ndarray:
    """Train some steps with pooled and plain segments of two requesters; all records."""
    rng = np.random.default_rng(1)
    pad = Pad([spec_of(0, rows, dim, dtype=dtype, optimizer=optimizer)], threads=threads)
    for step in range(1, 4):
        skewed = (rng.zipf(1.2, 60000) % 5000).astype(np.int64)
        lengths = np.full(3000, 20, np.int32)
        asked = [
            Segment(0, skewed, lengths, rng.random(60000, np.float32)),
            Segment(0, rng.permutation(5000)[:2000]),
        ]
        request = SegmentedRequest.of(asked)
        ticket = pad.plan(request, True)
        replies = gather(pad, request, asked, ticket=ticket)
        gradients = [r * np.float32(0.01) for r in replies]
        pad.update(ticket, request.addresses(gradients), "fp32", LR, step)
        pad.release(ticket)
    order = np.argsort(np.concatenate([ids for ids, _ in pad.scan(0)]))
    records = np.concatenate([records for _, records in pad.scan(0)])[order]
    return records.view(np.uint8).reshape(len(records), -1)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("optimizer", [RowWiseAdagrad(), Adam()])
@pytest.mark.parametrize("dim", [24, 64])
def test_threads_and_kind_of_table_change_no_bit(dtype: str, optimizer: Any, dim: int) -> None:
    one = busy_pad(1, 5000, dtype, optimizer, dim)
    assert (busy_pad(2, 5000, dtype, optimizer, dim) == one).all()
    assert (busy_pad(5, 5000, dtype, optimizer, dim) == one).all()
    assert (busy_pad(3, None, dtype, optimizer, dim) == one).all()


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("optimizer", [SGD(), Adam(), FTRL(l1=0.1)])
@pytest.mark.parametrize("dim", [13, 64])
def test_rows_update_alike_in_any_cut(dtype: str, optimizer: Any, dim: int) -> None:
    """Elements do not see each other; stochastic rounding knows (seed, step, id, column) only."""
    ids = np.arange(300, dtype=np.int64)
    gradient = np.random.default_rng(0).standard_normal((300, 2 * dim)).astype(np.float32)
    fields = {"dtype": dtype, "optimizer": optimizer}

    def train(spec: RowSpec, ids: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        pad = Pad([spec])
        gradient = np.ascontiguousarray(gradient)
        at = ids if spec.dynamic else ids // spec.buckets
        request = SegmentedRequest.of([Segment(0, at)])
        for step in (1, 2):
            ticket = pad.plan(request, True)
            pad.update(ticket, request.addresses([gradient]), "fp32", LR, step)
            pad.release(ticket)
        return pad.weights(0, ids)

    whole = train(spec_of(0, 300, 2 * dim, **fields), ids, gradient)
    right = spec_of(0, 300, dim, column=dim, **fields)
    assert (train(right, ids, gradient[:, dim:]) == whole[:, dim:]).all()
    for rows in (300, None):
        bucket = _native.bucket_of(ids, 0, 2, rows is None)
        half = spec_of(0, rows, 2 * dim, bucket=1, buckets=2, **fields)
        mine = ids[bucket == 1]
        assert (train(half, mine, gradient[mine]) == whole[mine]).all()


@pytest.mark.parametrize("dim", [24, 64])
@pytest.mark.parametrize("rows", [1000, None])
def test_sums_equal_summed_rows(rows: int | None, dim: int) -> None:
    """Pooled by the holder or by the requester: same forward, same rows after the update."""
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 1000, 4000)
    lengths = rng.multinomial(4000, np.full(300, 1 / 300)).astype(np.int32)
    gradient = rng.standard_normal((300, dim)).astype(np.float32)
    bag = np.repeat(np.arange(300), lengths)
    unique, inverse = np.unique(ids, return_inverse=True)

    pooled, plain = (Pad([spec_of(0, rows, dim)]) for _ in range(2))
    asked = [Segment(0, ids, lengths)]
    request = SegmentedRequest.of(asked)
    ticket = pooled.plan(request, True)
    sums = gather(pooled, request, asked, ticket=ticket)[0]
    pooled.update(ticket, request.addresses([gradient]), "fp32", LR, 1)

    asked = [Segment(0, unique)]
    request = SegmentedRequest.of(asked)
    ticket = plain.plan(request, True)
    replied = gather(plain, request, asked, ticket=ticket)[0]
    expected = np.zeros((300, dim), np.float32)
    np.add.at(expected, bag, replied[inverse])
    summed = np.zeros((len(unique), dim), np.float32)
    np.add.at(summed, inverse, gradient[bag])
    plain.update(ticket, request.addresses([summed]), "fp32", LR, 1)

    assert (sums == expected).all()
    assert (pooled.weights(0, unique) == plain.weights(0, unique)).all()


@pytest.mark.parametrize("rows", [1000, None])
def test_reading_creates_no_rows(rows: int | None) -> None:
    pad = Pad([spec_of(0, rows, 64)])
    ids = np.array([5, 900, 3], np.int64)
    asked = [Segment(0, ids), Segment(0, ids, np.array([2, 1], np.int32))]
    request = SegmentedRequest.of(asked)
    held = pad.bytes
    before = gather(pad, request, asked)
    assert pad.rows == 0
    assert pad.bytes == held
    after = gather(pad, request, asked, train=True)
    assert pad.rows == 3
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
    assert len(np.unique(before[0])) > 100


def test_plans_run_ahead_on_another_thread() -> None:
    """Tickets planned while others train: the same as one after the other."""
    from concurrent.futures import ThreadPoolExecutor

    def train(ahead: int) -> np.ndarray:
        rng = np.random.default_rng(2)
        pad = Pad(
            [spec_of(0, None, 64, optimizer=RowWiseAdagrad()), spec_of(1, 40000, 16)], threads=2
        )
        batches = [
            SegmentedRequest.of(
                [
                    Segment(0, rng.permutation(4000 * (b + 1))[:2000]),
                    Segment(1, rng.integers(0, 40000, 8000), np.full(400, 20, np.int32)),
                ]
            )
            for b in range(20)
        ]
        with ThreadPoolExecutor(1) as planner:
            planned = [planner.submit(pad.plan, batch, True) for batch in batches[:ahead]]
            for step, batch in enumerate(batches, 1):
                if not ahead:
                    ticket = pad.plan(batch, True)
                else:
                    ticket = planned.pop(0).result()
                    if step + ahead <= len(batches):
                        planned.append(planner.submit(pad.plan, batches[step + ahead - 1], True))
                pad.wait(ticket)
                replies = [np.empty((2000, 64), np.float32), np.empty((400, 16), np.float32)]
                pad.gather(ticket, batch.addresses(replies), "fp32")
                pad.update(ticket, batch.addresses(replies), "fp32", 0.01, step)
                pad.release(ticket)
        ids = np.sort(np.concatenate([ids for ids, _ in pad.scan(0)]))
        return np.concatenate(
            [pad.weights(0, ids).ravel(), pad.weights(1, np.arange(40000)).ravel()]
        )

    expected = train(0)
    for ahead in (1, 3):
        assert (train(ahead) == expected).all()


def test_write_and_erase() -> None:
    for rows in (500, None):
        pad = Pad([spec_of(0, rows, 24, optimizer=Adam())])
        ids = np.arange(0, 500, 3, dtype=np.int64)
        records = pad.read(0, ids)[0].copy()
        records["weights"] = 4
        records["state"] = np.arange(24)
        records["score"] = 9
        pad.write(0, ids, records)
        again, found = pad.read(0, ids)
        assert found.all()
        assert (again == records).all()
        assert pad.erase(0, ids[:100]) == 100
        assert pad.erase(0, ids[:100]) == 0
        assert pad.tile_rows(0) == len(ids) - 100
        back, found = pad.read(0, ids)
        assert (found == (np.arange(len(ids)) >= 100)).all()
        assert (back["weights"][100:] == 4).all()
        assert (back["weights"][:100] != 4).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 3000), max_size=400)), max_size=12))
def test_rows_come_and_go(moves: list[tuple[bool, set[int]]]) -> None:
    """Freed rows are used again and never shared."""
    pad = Pad([spec_of(0, None, 16), spec_of(1, 3001, 16)], budget_bytes=2 << 20)
    alive: set[int] = set()
    for create, chosen in moves:
        ids = np.array(sorted(chosen), np.int64)
        if create:
            pad.release(pad.plan(SegmentedRequest.of([Segment(0, ids), Segment(1, ids)]), True))
            alive |= chosen
        else:
            assert pad.erase(0, ids) == pad.erase(1, ids) == len(alive & chosen)
            alive -= chosen
        for tile in (0, 1):
            found = np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in pad.scan(tile))])
            assert sorted(found.tolist()) == sorted(alive)
    everyone = np.array(sorted(alive), np.int64)
    marks = np.arange(len(everyone), dtype=np.float32)
    for tile in (0, 1):
        records = pad.read(tile, everyone)[0].copy()
        records["weights"] = marks[:, None]
        pad.write(tile, everyone, records)
    for tile in (0, 1):
        assert (pad.weights(tile, everyone) == marks[:, None]).all()


# ---- refusals ------------------------------------------------------------------------------------


def test_ids_outside_the_table_are_refused() -> None:
    pad = Pad([spec_of(0, 100, 8, bucket=1, buckets=3), *(spec_of(t, None, 8) for t in (1, 2, 3))])
    for tile, id, message in [
        (0, 34, r"table 't0' \(bucket 1 of 3, columns 0:8\): row position 34 is outside \[0, 33\)"),
        (0, -1, "row position -1 is outside"),
        (1, -1, "id -1 is outside"),
        (1, 2**62, r"id 4611686018427387904 is outside \[0, 2\^62\)"),
    ]:
        request = SegmentedRequest.of([Segment(tile, np.array([0, id], np.int64))])
        for train in (True, False):
            with pytest.raises(ValueError, match=message):
                pad.plan(request, train)
    with pytest.raises(ValueError, match="does not belong to this tile"):
        pad.read(0, np.arange(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tile": np.array([0, 2], np.int32)}, "a tile that is not held"),
        ({"tile": np.array([1, 0], np.int32)}, "not ordered by tile"),
        ({"first": np.array([0, 2, 5], np.int64)}, "first does not cover ids"),
        ({"first": np.array([0, 2], np.int64)}, "first has 2 elements, expected 3"),
        ({"bags": np.array([0, 3, 5], np.int64)}, "one reply row per id"),
        ({"lengths": np.array([1, 2], np.int32)}, "do not sum to its ids"),
        ({"lengths": np.array([3, -1], np.int32)}, "negative length"),
        ({"lengths": np.array([2], np.int32)}, "fewer lengths"),
        ({"lengths": np.array([1, 1, 0], np.int32)}, "more lengths"),
        ({"weights": np.ones(3, np.float32)}, "weights has 3 elements, expected 4"),
    ],
)
def test_malformed_requests_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    pad = Pad([spec_of(0, 9, 8), spec_of(1, 9, 8)])
    good = SegmentedRequest.of(
        [
            Segment(0, np.array([1, 2], np.int64)),
            Segment(1, np.array([3, 3], np.int64), np.array([1, 1], np.int32)),
        ]
    )
    pad.release(pad.plan(good, True))
    with pytest.raises(ValueError, match=message):
        pad.plan(replace(good, **change), True)


def test_tickets_are_used_as_they_were_planned() -> None:
    pad = Pad([spec_of(0, 9, 8)])
    request = SegmentedRequest.of([Segment(0, np.array([1, 2], np.int64))])
    rows = np.zeros((2, 8), np.float32)
    addresses = request.addresses([rows])
    reading = pad.plan(request, False)
    with pytest.raises(ValueError, match="planned with train=False"):
        pad.update(reading, addresses, "fp32", LR, 1)
    with pytest.raises(ValueError, match="2 addresses for 1 segments"):
        pad.gather(reading, np.concatenate([addresses, addresses]), "fp32")
    with pytest.raises(ValueError, match="fp64"):
        pad.gather(reading, addresses, "fp64")
    with pytest.raises(ValueError, match="step counts from 1"):
        pad.update(reading, addresses, "fp32", LR, 0)
    pad.release(reading)
    assert reading.released
    pad.release(reading)
    with pytest.raises(ValueError, match="released"):
        pad.gather(reading, addresses, "fp32")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 0}, r"dim must be in \[1, 65536\], got 0"),
        ({"bucket": 2, "buckets": 2}, "no bucket 2 of 2"),
        ({"dtype": "int8"}, "dtype must be one of fp32, bf16, fp16, got 'int8'"),
        ({"rows": -1}, "rows must be in"),
        ({"seed": -1}, "seed must be in"),
    ],
)
def test_impossible_specs_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec_of(0, **({"rows": 9, "dim": 8} | change))
