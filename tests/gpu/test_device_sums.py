"""The sums of a step by kernels against those of the host: bits, long sums, any width."""

from __future__ import annotations

from typing import Any

import gpu
import numpy as np
import pytest
from device_side import World, columns_from, exchange_of
from mpi4py import MPI
from oracle import AXES, SHAPES, Batch, Holder, HostSide, features_of, placement_of

from fourfold.comm.backend import Backend
from fourfold.comm.exchange import Exchange
from fourfold.comm.placement import Placement
from fourfold.comm.route import Feature
from fourfold.comm.tile import Shape, Tile

pytestmark = pytest.mark.mpi


def big_batch(features: list[Feature], seed: int, size: int = 150, hot: float = 0.0) -> Batch:
    """Random weights and long bags, so that the order of sums shows in the last bits.

    hot: how many of all ids are one and the same.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 9, len(features) * size)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.concatenate(
        [
            rng.zipf(1.2, offsets[(f + 1) * size] - offsets[f * size])
            % (SHAPES[x.table].rows or 999)
            for f, x in enumerate(features)
        ]
    )
    ids[rng.random(ids.size) < hot] = 1
    weights = rng.random(ids.size, np.float32)
    return Batch(ids.astype(np.int64), offsets.astype(np.int64), weights, size)


def steps_of(
    place: tuple[Backend, HostSide, Any], batch: Batch, features: list[Feature], axis: str,
    reply: str, wire: str, dtype: Any = np.float32, repeats: int = 1,
) -> list[tuple[Any, dict[Any, Any]]]:  # fmt: skip
    """Outputs, and gradients per row on this holder, of the same step again and again."""
    backend, side, memory = place
    placement = placement_of(axis, backend.size, tuple(range(backend.size)))
    exchange = exchange_of(backend, placement, features, reply, wire=wire, memory=memory)
    rng = np.random.default_rng(backend.rank)
    grad = rng.standard_normal((batch.size, exchange.output_dim), np.float32)
    if dtype == np.uint16:
        grad = (grad.view(np.uint32) >> 16).astype(np.uint16)
    grad = grad.astype(dtype)
    results = []
    for _ in range(repeats):
        holder = Holder(placement, backend.rank, wire, side)
        routed = exchange.route(batch.ids, batch.offsets, batch.weights, batch.size)
        holder.gather(routed, exchange.reply(routed))
        out = side.place(np.zeros((batch.size, exchange.output_dim), dtype))
        exchange.forward(routed, out)
        holder.update(routed, exchange.backward(routed, side.place(grad)))
        results.append((side.fetch(out), holder.grads))
    return results


def check_equal(a: tuple[Any, dict[Any, Any]], b: tuple[Any, dict[Any, Any]]) -> None:
    np.testing.assert_array_equal(a[0].view(f"u{a[0].itemsize}"), b[0].view(f"u{b[0].itemsize}"))
    assert a[1].keys() == b[1].keys()
    for key, value in a[1].items():
        np.testing.assert_array_equal(value, b[1][key])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint16])
@pytest.mark.parametrize("wire", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("reply", ["rows", "pooled"])
@pytest.mark.parametrize("axis", ["row", "hierarchical"])
def test_the_same_bits_as_on_the_host(
    world: World, axis: str, reply: str, wire: str, dtype: Any
) -> None:
    """Sums of at most 64 entries, whatever the element types."""
    features = [Feature("a", 0, "sum"), Feature("b", 1, "mean")]
    rng = np.random.default_rng(world.mpi.rank)
    batch = big_batch(features, world.mpi.rank)
    batch.ids = rng.integers(0, 50, batch.ids.size)  # each about 24 times
    host, there = (
        steps_of(world.pick(where), batch, features, axis, reply, wire, dtype)[0]
        for where in ("host", "device")
    )
    check_equal(host, there)


@pytest.mark.parametrize("wire", ["fp32", "bf16"])
@pytest.mark.parametrize("axis", AXES)
def test_hot_rows(world: World, axis: str, wire: str) -> None:
    """Long sums are cut, at the same places every time: the bits repeat, and the sum is right."""
    features = features_of("sum")
    batch = big_batch(features, world.mpi.rank, hot=0.6)
    host = steps_of(world.pick("host"), batch, features, axis, "rows", wire)[0]
    with gpu.shaken(world.mpi.rank):
        there = steps_of(world.pick("device"), batch, features, axis, "rows", wire, repeats=3)
    np.testing.assert_array_equal(there[0][0], host[0])
    assert there[0][1].keys() == host[1].keys()
    bound = 1e-5 if wire == "fp32" else 2**-8
    for key, value in host[1].items():
        np.testing.assert_allclose(there[0][1][key], value, rtol=bound, atol=bound * 40)
    for again in there[1:]:
        check_equal(again, there[0])


def test_rows_are_cut_at_64_entries(world: World) -> None:
    """Halves and rests of sums: 64, 65, 128, 129 entries of one id each, small whole numbers."""
    features = [Feature("a", 0, "sum")]
    place = world.pick("device")
    backend, side, memory = place
    placement = placement_of("column", backend.size, tuple(range(backend.size)))
    exchange = exchange_of(backend, placement, features, "rows", memory=memory)
    lengths = [63, 64, 65, 127, 128, 129, 1]
    ids = np.repeat(np.arange(len(lengths)), lengths)
    np.random.default_rng(backend.rank).shuffle(ids)
    holder = Holder(placement, backend.rank, "fp32", side)
    routed = exchange.route(ids, np.arange(ids.size + 1), None, ids.size)
    holder.gather(routed, exchange.reply(routed))
    exchange.forward(routed, side.place(np.zeros((ids.size, 8), np.float32)))
    grad = np.random.default_rng(1).integers(-8, 9, (ids.size, 8)).astype(np.float32)
    holder.update(routed, exchange.backward(routed, side.place(grad)))
    want = np.zeros((len(lengths), 8))
    np.add.at(want, ids, grad)
    totals = np.zeros_like(want)
    MPI.COMM_WORLD.Allreduce(want, totals)
    for (_, start, key), found in holder.grads.items():
        np.testing.assert_array_equal(found, totals[key, start : start + found.size])


@pytest.mark.parametrize("dims", [(1, 3, 7), (4, 12, 20), (8, 64, 136), (130, 256, 5)])
@pytest.mark.parametrize("wire", ["fp32", "bf16"])
@pytest.mark.parametrize("lead", [0, 1, 4])
def test_any_width(world: World, dims: tuple[int, ...], wire: str, lead: int) -> None:
    """Rows of any width, outputs at any column: the same bits as on the host."""
    comm, features = MPI.COMM_WORLD, [Feature(f"f{t}", t, "sum") for t in range(3)]
    shapes = tuple(Shape(f"t{t}", dim, 40) for t, dim in enumerate(dims))
    tiles = tuple(Tile(t, 0, 1, 0, dim, (t % comm.size,)) for t, dim in enumerate(dims))
    placement = Placement(shapes, tiles, comm.size)
    rng = np.random.default_rng(comm.rank)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 4, 3 * 20))])
    ids = rng.integers(0, 40, offsets[-1])
    weights = rng.random(ids.size, np.float32)
    results = []
    for where in ("host", "device"):
        backend, side, memory = world.pick(where)
        exchange = Exchange(
            backend,
            placement,
            features,
            replies=("rows", "pooled", "rows"),
            wire=wire,
            memory=memory,
        )
        routed = exchange.route(ids, offsets, weights, 20)
        rows = np.random.default_rng(7)
        addresses = exchange.reply(routed).tolist()
        request, held = routed.request, placement.held_by(comm.rank)
        counts = np.diff(request.bags).tolist()
        dtype = np.float32 if wire == "fp32" else np.uint16
        for s, address in enumerate(addresses):
            shape = counts[s], held[request.tile[s]].dim
            values = rows.standard_normal(shape, np.float32)
            if wire == "bf16":
                values = (values.view(np.uint32) >> 16).astype(np.uint16)
            if counts[s]:
                side.write(address, values.astype(dtype), wire)
        wide = rng.standard_normal((20, lead + exchange.output_dim), np.float32) * 0
        out = side.place(wide)
        exchange.forward(routed, columns_from(side, out, lead))
        grad = np.random.default_rng(8).standard_normal(wide.shape, np.float32)
        placed = side.place(grad)
        addresses = exchange.backward(routed, columns_from(side, placed, lead)).tolist()
        gradients = [
            side.read(address, counts[s], held[request.tile[s]].dim, wire).copy()
            for s, address in enumerate(addresses)
            if counts[s]
        ]
        results.append((side.fetch(out), gradients))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    for a, b in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_array_equal(a, b)
