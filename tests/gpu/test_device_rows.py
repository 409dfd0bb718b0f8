"""Kernels on rows against the loops that do the same on the host: the same pad twice."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gpu
import numpy as np
import pytest
from numpy.typing import NDArray

from fourfold.storage import (
    FTRL,
    SGD,
    Adagrad,
    Adam,
    Constant,
    Normal,
    Pad,
    RowSpec,
    RowWiseAdagrad,
    RowWiseAdam,
    Segment,
    SegmentedRequest,
    Uniform,
    _native,
)

OPTIMIZERS = (
    SGD(),
    Adagrad(),
    RowWiseAdagrad(initial_accumulator=0.1),
    Adam(),
    RowWiseAdam(),
    FTRL(l1=0.01, l2=0.01, initial_accumulator=0.1),
)
DTYPES = ("fp32", "bf16", "fp16")
DIMS = (1, 3, 8, 64, 100, 128, 300)
WIRES = {"fp32": np.float32, "bf16": np.uint16, "fp16": np.float16}
LR = 0.05


def spec_of(table: int, dim: int = 8, **changes: Any) -> RowSpec:
    fields = {"optimizer": SGD(), "init": Normal(1.0), "seed": 5, "rows": None} | changes
    return RowSpec(table=table, name=f"t{table}", dim=dim, **fields)


def all_specs() -> list[RowSpec]:
    """Tiles of every optimizer, dtype and dim; some static, some not the first columns."""
    combinations = itertools.product(OPTIMIZERS, DTYPES, DIMS)
    inits = itertools.cycle((Normal(0.5), Uniform(0.5), Constant(0.25)))
    return [
        spec_of(
            table,
            dim,
            optimizer=optimizer,
            dtype=dtype,
            init=next(inits),
            rows=None if table % 3 else 1000,
            column=table % 5,
        )
        for table, (optimizer, dtype, dim) in enumerate(combinations)
    ]


def to_wire(rows: NDArray[np.float32], wire: str) -> NDArray[Any]:
    if wire == "bf16":
        return _native.narrow(rows.ravel(), 1).reshape(rows.shape)
    return rows.astype(WIRES[wire])


def to_float(rows: NDArray[Any], wire: str) -> NDArray[np.float32]:
    if wire == "bf16":
        return _native.widen(rows.ravel(), 1).reshape(rows.shape)
    return rows.astype(np.float32)


def reply_rows(segment: Segment) -> int:
    return len(segment.ids) if segment.lengths is None else len(segment.lengths)


def segment_of(
    rng: np.random.Generator, tile: int, rows: int, *, pooled: bool, weighted: bool = False
) -> Segment:
    """Some of 40 ids: distinct ones, or bags of 0 to 5."""
    if not pooled:
        return Segment(tile, rng.permutation(40)[:rows])
    lengths = rng.integers(0, 6, rows).astype(np.int32)
    ids = rng.integers(0, 40, lengths.sum())
    weights = rng.normal(size=len(ids)).astype(np.float32) if weighted else None
    return Segment(tile, ids, lengths, weights)


@dataclass
class Twins:
    """The same rows on the host and on a device."""

    name: str
    specs: list[RowSpec]
    budget: int = 64 << 20

    def __post_init__(self) -> None:
        device = gpu.open_device(self.name, _native)
        self.host = Pad(self.specs, threads=2)
        self.there = Pad(self.specs, threads=2, budget_bytes=self.budget, device=device)

    def rooms(
        self, segments: Sequence[Segment], wire: str, values: Any = None
    ) -> tuple[Any, NDArray[np.uint64], list[slice]]:
        """One array of the device with a place for each segment, no more aligned than its type."""
        sizes = [reply_rows(s) * self.specs[s.tile].dim for s in segments]
        ends = np.cumsum([1, *(size + 1 for size in sizes)])
        places = [slice(end, end + size) for end, size in zip(ends, sizes, strict=False)]
        flat = np.full(ends[-1] + 1, 7, WIRES[wire])
        for place, value in zip(places, values or [], strict=values is not None):
            flat[place] = value.ravel()
        array = gpu.to_device(flat, self.name)
        begins = [place.start for place in places]
        return array, np.array(begins, np.uint64) * flat.itemsize + np.uint64(array.address), places

    def gather(
        self, segments: Sequence[Segment], wire: str, tickets: tuple[Any, Any]
    ) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Reply rows of each segment, from both."""
        request = SegmentedRequest.of(segments)
        dims = [self.specs[s.tile].dim for s in segments]
        here = [
            np.empty((reply_rows(s), d), WIRES[wire]) for s, d in zip(segments, dims, strict=True)
        ]
        self.host.gather(tickets[0], request.addresses(here), wire)
        array, addresses, places = self.rooms(segments, wire)
        self.there.gather(tickets[1], addresses, wire)
        flat = array.numpy()
        outside = np.ones(len(flat), bool)
        for place, segment in zip(places, segments, strict=True):
            outside[place] = not segment.reply
        assert (flat[outside] == 7).all()
        there = [flat[place].reshape(a.shape) for place, a in zip(places, here, strict=True)]
        pairs = zip(segments, here, there, strict=True)
        return [(h, t) for s, h, t in pairs if s.reply]

    def update(
        self,
        segments: Sequence[Segment],
        wire: str,
        tickets: tuple[Any, Any],
        gradients: list[NDArray[Any]],
        step: int,
        lr: float = LR,
    ) -> None:
        request = SegmentedRequest.of(segments)
        self.host.update(tickets[0], request.addresses(gradients), wire, lr, step)
        array, addresses, _ = self.rooms(segments, wire, gradients)
        self.there.update(tickets[1], addresses, wire, lr, step)
        array.numpy()  # waits

    def plan(self, segments: Sequence[Segment], *, train: bool) -> tuple[Any, Any]:
        request = SegmentedRequest.of(segments)
        return self.host.plan(request, train), self.there.plan(request, train)

    def release(self, tickets: tuple[Any, Any]) -> None:
        self.host.release(tickets[0])
        self.there.release(tickets[1])

    def step(self, rng: np.random.Generator, segments: list[Segment], wire: str, step: int) -> None:
        """A training batch, whose replies are compared."""
        tickets = self.plan(segments, train=True)
        for here, there in self.gather(segments, wire, tickets):
            assert here.tobytes() == there.tobytes()
        gradients = [
            to_wire(
                rng.normal(size=(reply_rows(s), self.specs[s.tile].dim)).astype(np.float32), wire
            )
            for s in segments
        ]
        self.update(segments, wire, tickets, gradients, step)
        self.release(tickets)

    def rows(self, tile: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """All rows of a tile, from both."""
        ids = np.sort(np.concatenate([ids for ids, _ in self.host.scan(tile)]))
        (here, _), (there, found) = (pad.read(tile, ids) for pad in (self.host, self.there))
        assert found.all()
        assert self.there.tile_rows(tile) == len(ids)
        return here, there

    def align(self, tile: int) -> None:
        """Make rows equal again, where sums in another order have made a difference."""
        for ids, records in self.host.scan(tile):
            self.there.write(tile, ids, records)
        here, there = self.rows(tile)
        assert here.tobytes() == there.tobytes()


STEPS = {"fp32": 0.0, "bf16": 2**-7, "fp16": 2**-10}
"""From a number to the next, in parts of it."""


def assert_near(got: NDArray[Any], expected: NDArray[Any], kind: str) -> None:
    """Within 1e-6 of the largest number there; in 16 bits, a few may round to the next number."""
    if expected.size == 0:
        return
    bound = 1e-6 * np.abs(expected).max() + STEPS[kind] * np.abs(expected)
    near = np.abs(got - expected) <= bound
    assert near.all(), (got[~near][:4], expected[~near][:4])
    if kind != "fp32":
        assert (got != expected).sum() <= 1 + 0.01 * got.size


def assert_rows_agree(twins: Twins, tile: int) -> None:
    """Bit for bit; a row's mean square, where an optimizer has one, is a sum in another order."""
    here, there = twins.rows(tile)
    if not twins.specs[tile].optimizer.row_states:
        assert here.tobytes() == there.tobytes()
        return
    dtype = twins.specs[tile].dtype
    for field in twins.specs[tile].record.names or ():
        a, b = (np.ascontiguousarray(x[field]).reshape(len(x), -1) for x in (here, there))
        if field in ("time", "score"):
            assert (a == b).all()
        elif field == "weights" and dtype != "fp32":
            a, b = (_native.widen(x.view(np.uint16).ravel(), DTYPES.index(dtype)) for x in (a, b))
            assert_near(b.reshape(there[field].shape), a.reshape(there[field].shape), dtype)
        else:
            assert_near(b, a, "fp32")


@pytest.mark.parametrize(("wire", "weighted"), [("fp32", False), ("bf16", True), ("fp16", True)])
@pytest.mark.parametrize("name", gpu.devices())
def test_all_kinds_of_rows_in_one_batch(name: str, wire: str, *, weighted: bool) -> None:
    rng = np.random.default_rng(1)
    twins = Twins(name, all_specs())
    segments = []
    for tile in range(len(twins.specs)):
        if (tile + (wire == "bf16")) % 3 == 0:  # distinct rows, of one requester
            segments.append(segment_of(rng, tile, 5, pooled=False))
            continue
        segments.append(segment_of(rng, tile, 4, pooled=True, weighted=weighted))
        segments.append(replace(segment_of(rng, tile, 3, pooled=False), reply=tile % 7 > 0))
        segments.append(segment_of(rng, tile, 0, pooled=tile % 2 == 0))
    twins.step(rng, segments, wire, 1)
    for tile in range(len(twins.specs)):
        assert_rows_agree(twins, tile)


@pytest.mark.parametrize("name", gpu.devices())
def test_many_steps(name: str) -> None:
    rng = np.random.default_rng(2)
    twins = Twins(name, [spec_of(t, 12, optimizer=o) for t, o in enumerate(OPTIMIZERS)])
    for step in range(1, 5):
        segments = [segment_of(rng, t, 9, pooled=True) for t in range(len(twins.specs))]
        twins.step(rng, segments, "fp32", step)
        for tile in range(len(twins.specs)):
            assert_rows_agree(twins, tile)
            twins.align(tile)


HOT = (1, 128, 129, 256, 257, 1000, 6000)
"""Entries of the groups of a batch: on both sides of the length from which sums are cut."""


def hot_segments(rng: np.random.Generator) -> list[Segment]:
    ids = rng.permutation(np.repeat(np.arange(len(HOT)), HOT))
    lengths = np.full(len(ids) // 4 + 1, 4, np.int32)
    lengths[-1] = len(ids) % 4
    weights = rng.normal(size=len(ids)).astype(np.float32)
    return [Segment(t, ids, lengths, weights) for t in range(3) for _ in range(2)]


def hot_specs(dtype: str) -> list[RowSpec]:
    optimizers = (SGD(), RowWiseAdagrad(initial_accumulator=0.1), FTRL())
    return [
        spec_of(t, dim, optimizer=o, dtype=dtype)
        for t, (dim, o) in enumerate(zip((8, 3, 160), optimizers, strict=True))
    ]


@pytest.mark.parametrize(("wire", "dtype"), [("fp32", "fp32"), ("bf16", "fp16")])
@pytest.mark.parametrize("name", gpu.devices())
def test_hot_rows(name: str, wire: str, dtype: str) -> None:
    rng = np.random.default_rng(3)
    twins = Twins(name, hot_specs(dtype))
    segments = hot_segments(rng)
    tickets = twins.plan(segments, train=True)
    gradients = [
        to_wire(rng.normal(size=(reply_rows(s), twins.specs[s.tile].dim)).astype(np.float32), wire)
        for s in segments
    ]
    before = [twins.rows(t)[0]["weights"].copy() for t in range(3)]
    twins.update(segments, wire, tickets, gradients, 1)
    # In float64, because a long sum in one go is itself no better than 1e-6 of its terms.
    sums = np.zeros((len(HOT), 8))
    for s, gradient in zip(segments[:2], gradients[:2], strict=True):
        rows = np.repeat(np.arange(reply_rows(s)), s.lengths)
        np.add.at(sums, s.ids, s.weights[:, None] * to_float(gradient, wire)[rows].astype(float))
    there = twins.rows(0)[1]["weights"]
    if dtype == "fp32":
        expected = before[0] - LR * sums
        assert np.abs(there - expected).max() <= 2e-6 * np.abs(sums).max()
    for tile in range(3):
        here, there = (rows["weights"] for rows in twins.rows(tile))
        assert not (there == before[tile]).all()
        if dtype == "fp32":
            assert np.abs(there - here).max() <= 1e-5 * np.abs(here).max()
    twins.release(tickets)


@pytest.mark.parametrize("hot", [False, True])
def test_launches_of_an_update(*, hot: bool) -> None:
    """One for all rows; where sums are long, one more before it."""
    rng = np.random.default_rng(8)
    twins = Twins("stand-in", hot_specs("fp32"))
    segments = hot_segments(rng) if hot else [segment_of(rng, t, 9, pooled=True) for t in range(3)]
    tickets = twins.plan(segments, train=True)
    gradients = [
        rng.normal(size=(reply_rows(s), twins.specs[s.tile].dim)).astype(np.float32)
        for s in segments
    ]
    before = gpu.launches()
    twins.update(segments, "fp32", tickets, gradients, 1)
    assert gpu.launches() - before == (2 if hot else 1)
    twins.release(tickets)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_results_repeat_bit_for_bit(dtype: str) -> None:
    """Whatever the order in which the device's threads run."""
    outcomes = []
    for seed in (0, 1, 2):
        rng = np.random.default_rng(4)
        segments = hot_segments(rng)
        with gpu.shaken(seed, 20):
            twins = Twins("stand-in", hot_specs(dtype))
            tickets = twins.plan(segments, train=True)
            replies = twins.gather(segments, "bf16", tickets)
            gradients = [
                rng.normal(size=(reply_rows(s), twins.specs[s.tile].dim)).astype(np.float32)
                for s in segments
            ]
            twins.update(segments, "fp32", tickets, gradients, 1)
            twins.release(tickets)
            rows = [twins.rows(t)[1].tobytes() for t in range(3)]
        outcomes.append((rows, [there.tobytes() for _, there in replies]))
    assert outcomes[0] == outcomes[1] == outcomes[2]


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("name", gpu.devices())
def test_stochastic_rounding_has_the_same_noise(name: str, dtype: str) -> None:
    """Numbers are chosen so that sums are exact: then rows are equal bit for bit."""
    rng = np.random.default_rng(5)
    twins = Twins(name, [spec_of(t, dim, dtype=dtype) for t, dim in enumerate((3, 8, 64, 300))])
    for step in (1, 2, 3):
        segments = []
        for tile in range(len(twins.specs)):
            segments.append(segment_of(rng, tile, 6, pooled=True))
            segments.append(segment_of(rng, tile, 6, pooled=False))
        tickets = twins.plan(segments, train=True)
        shapes = [(reply_rows(s), twins.specs[s.tile].dim) for s in segments]
        gradients = [rng.integers(-64, 64, shape).astype(np.float32) / 2**12 for shape in shapes]
        twins.update(segments, "fp32", tickets, gradients, step, lr=0.25)
        twins.release(tickets)
    for tile in range(len(twins.specs)):
        here, there = twins.rows(tile)
        assert here.tobytes() == there.tobytes()


@pytest.mark.parametrize("name", gpu.devices())
def test_ids_without_a_row(name: str) -> None:
    """They read zeros, or the row they would be born as; a half born batch reads both."""
    rng = np.random.default_rng(6)
    twins = Twins(
        name,
        [
            spec_of(0, 12),
            spec_of(1, 300, dtype="bf16"),
            spec_of(2, 3, absent="zeros", rows=50),
            spec_of(3, 8, absent="zeros", dtype="fp16"),
        ],
    )
    twins.release(twins.plan([Segment(t, np.arange(0, 40, 2)) for t in range(4)], train=True))
    segments = [
        s
        for t in range(4)
        for s in (segment_of(rng, t, 20, pooled=False), segment_of(rng, t, 20, pooled=True))
    ]
    for wire in WIRES:
        tickets = twins.plan(segments, train=False)
        for here, there in twins.gather(segments, wire, tickets):
            assert here.tobytes() == there.tobytes()
        twins.release(tickets)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", gpu.devices())
def test_records(name: str, dtype: str) -> None:
    """What is written is read, in as many rounds as it takes (8 MiB each)."""
    rng = np.random.default_rng(7)
    specs = [
        spec_of(t, dim, dtype=dtype, optimizer=o)
        for t, (dim, o) in enumerate(itertools.product((1, 3, 8, 300), (SGD(), RowWiseAdam())))
    ]
    specs.append(spec_of(len(specs), 1024, dtype=dtype, optimizer=Adam()))
    device = gpu.open_device(name, _native)
    pad = Pad(specs, budget_bytes=128 << 20, device=device, threads=2)
    for tile, spec in enumerate(specs):
        ids = rng.permutation(3000 if spec.dim == 1024 else 50)
        records = np.zeros(len(ids), spec.record)
        for field in (spec.record.names or ())[:-2]:  # not the metadata
            shape = records[field].shape
            kind = records.dtype[field].base
            bits = rng.integers(0, 256, (*shape, kind.itemsize), np.uint8)
            records[field] = bits.view(kind).reshape(shape)
        pad.write(tile, ids, records)
        got, found = pad.read(tile, ids)
        assert found.all()
        assert got.tobytes() == records.tobytes()
