"""The exchange with rows and gradients in the memory of a GPU against one process, and the host's.

Ranks of one world may differ in where their memory is, so that most tests run with all ranks on
devices, and with every other one.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from itertools import product
from typing import Any

import gpu
import nccl_stand_in
import numpy as np
import pytest
from device_side import DeviceSide, World, exchange_of, replies_of
from mpi4py import MPI
from oracle import (
    AXES,
    ROLES,
    Batch,
    Holder,
    HostSide,
    expect_forward,
    expect_grads,
    features_of,
    make_batch,
    placement_of,
    roles_of,
    run_step,
)

from fourfold.comm import _native
from fourfold.comm.backend import Backend
from fourfold.comm.device import DeviceArray, as_device_array
from fourfold.comm.mpi import MpiBackend
from fourfold.comm.nccl import NcclBackend
from fourfold.comm.route import Feature

pytestmark = pytest.mark.mpi

INPUTS = [
    ("mixed", "fp32", False, "many"),
    ("mixed", "bf16", True, "many"),
    ("mixed", "fp16", True, "same"),
    ("mixed", "fp32", False, "one"),
    ("mixed", "fp32", False, "empty"),
    ("sum", "bf16", False, "one"),
    ("mean", "fp32", True, "many"),
]
"""Pooling, wire, weighted, kind of batch."""


@pytest.fixture(scope="module")
def nccl(side: DeviceSide) -> Iterator[NcclBackend]:
    """NCCL, or on the stand-in what stands in for it."""
    with pytest.MonkeyPatch.context() as patch:
        if side.name == "stand-in":
            for name, module in nccl_stand_in.modules(nccl_stand_in.Nccl()).items():
                patch.setitem(sys.modules, name, module)
        elif MPI.COMM_WORLD.size > 1:
            pytest.skip("the ranks of these tests share a GPU")
        with NcclBackend(
            MpiBackend(MPI.COMM_WORLD), MPI.COMM_WORLD, side.device, side.stream
        ) as backend:
            yield backend


def check(
    place: tuple[Backend, HostSide, Any], axis: str, roles: str, pooling: str, reply: str,
    wire: str, kind: str, weighted: bool, steps: int = 1,
) -> None:  # fmt: skip
    """Run steps on all ranks; compare outputs, and every gradient on every holder."""
    comm = MPI.COMM_WORLD
    backend, side, memory = place
    dense, holders = roles_of(roles, comm.size)
    features = features_of(pooling)
    placement = placement_of(axis, comm.size, holders)
    exchange = exchange_of(backend, placement, features, reply, wire=wire, memory=memory)
    holder = Holder(placement, comm.rank, wire, side)
    done = []
    for step in range(steps):
        seed = 10 * step + comm.rank
        batch = make_batch(features, kind, weighted, seed, comm.rank in dense)
        routed = exchange.route(batch.ids, batch.offsets, batch.weights, batch.size)
        out, sequences, *grads = run_step(exchange, holder, routed, features, batch, seed)
        expected, expected_sequences = expect_forward(features, batch)
        np.testing.assert_array_equal(out, expected)
        for got, want in zip(sequences, expected_sequences, strict=True):
            np.testing.assert_array_equal(got, want)
        done += comm.allgather((batch, *grads))
    want_grads = expect_grads(features, placement, replies_of(features, reply), wire, done)
    keys = {key for key in want_grads for tile in holder.tiles if holder.holds(tile, *key)}
    assert {(table, key) for table, _, key in holder.grads} == keys
    for (table, start, key), grad in holder.grads.items():
        np.testing.assert_array_equal(grad, want_grads[table, key][start : start + grad.size])


@pytest.mark.parametrize("where", ["device", "mixed"])
@pytest.mark.parametrize("reply", ["rows", "pooled"])
@pytest.mark.parametrize("roles", ROLES)
@pytest.mark.parametrize("axis", AXES)
def test_one_process(world: World, axis: str, roles: str, reply: str, where: str) -> None:
    """Any placement, any roles, any wire type, any memory compute what one process computes."""
    if world.mpi.size == 1 and (roles != "colocated" or where != "device"):
        pytest.skip("one rank has one role, and one memory")
    for pooling, wire, weighted, kind in INPUTS:
        check(world.pick(where), axis, roles, pooling, reply, wire, kind, weighted)


@pytest.mark.parametrize("pooling", ["mean", "none"])
@pytest.mark.parametrize("axis", AXES)
def test_steps(world: World, axis: str, pooling: str) -> None:
    """Several steps reuse buffers."""
    for reply, weighted in product(("rows", "pooled"), (False, True)):
        check(world.pick("device"), axis, "colocated", pooling, reply, "fp32", "many", weighted, 3)


@pytest.mark.parametrize("reply", ["rows", "pooled"])
@pytest.mark.parametrize("axis", AXES)
def test_nccl(nccl: NcclBackend, side: DeviceSide, axis: str, reply: str) -> None:
    """The same, with the messages of a step over NCCL."""
    for pooling, wire, weighted, kind in INPUTS:
        place = nccl, side, side.memory
        check(place, axis, "overlapping", pooling, reply, wire, kind, weighted, 2)


def test_routing_ahead_on_a_thread(world: World) -> None:
    """Routes are used again while others are under way; streams are late at random."""
    if not world.mpi.can_overlap:
        pytest.skip("this MPI does not give THREAD_MULTIPLE")
    backend, side, memory = world.pick("device")
    features = features_of("mixed")
    placement = placement_of("row", backend.size, tuple(range(backend.size)))
    exchange = exchange_of(backend, placement, features, "pooled", memory=memory)
    batches = [make_batch(features, "many", True, 10 * s + backend.rank, True) for s in range(12)]
    routed: list[Any] = []
    room, ready = threading.Semaphore(3), threading.Semaphore(0)

    def route_all() -> None:
        for batch in batches:
            room.acquire()
            routed.append(exchange.route(batch.ids, batch.offsets, batch.weights, batch.size))
            ready.release()

    router = threading.Thread(target=route_all, daemon=True)  # a failure must not wait for it
    with gpu.shaken(1, delay_us=300):
        router.start()
        holder = Holder(placement, backend.rank, "fp32", side)
        for step, batch in enumerate(batches):
            ready.acquire()
            out, *_ = run_step(exchange, holder, routed.pop(0), features, batch, step)
            room.release()
            np.testing.assert_array_equal(out, expect_forward(features, batch)[0])
        router.join()


def test_the_host_runs_ahead_of_the_device(world: World) -> None:
    """Routes are used again before the device has come to what was enqueued with them."""
    backend, _, memory = world.pick("device")
    side = PatientSide(world.side)
    features = features_of("mixed")
    placement = placement_of("row", backend.size, tuple(range(backend.size)))
    exchange = exchange_of(backend, placement, features, "rows", memory=memory)
    holder = Holder(placement, backend.rank, "fp32", side)
    batches = [make_batch(features, "many", True, 10 * s + backend.rank, True) for s in range(8)]
    outs, lists = [], []
    for batch in batches:
        ids = np.diff(batch.offsets[:: batch.size])[2]
        outs.append(side.place(np.zeros((batch.size, exchange.output_dim), np.float32)))
        lists.append(side.place(np.zeros((int(ids), 8), np.float32)))
    with gpu.shaken(3, delay_us=3000):
        for batch, out, sequence in zip(batches, outs, lists, strict=True):
            routed = exchange.route(batch.ids, batch.offsets, batch.weights, batch.size)
            holder.gather(routed, exchange.reply(routed))
            exchange.forward(routed, out, [sequence])
            del routed
        world.side.stream.synchronize()
    for batch, out, sequence in zip(batches, outs, lists, strict=True):
        expected, (expected_sequence,) = expect_forward(features, batch)
        np.testing.assert_array_equal(side.fetch(out), expected)
        np.testing.assert_array_equal(side.fetch(sequence), expected_sequence)


class PatientSide(DeviceSide):
    """Does not wait for what it writes; keeps it instead."""

    def __init__(self, side: DeviceSide) -> None:
        self.name, self.stream = side.name, side.stream
        self.kept: list[np.ndarray] = []

    def write(self, address: int, rows: np.ndarray, wire: str) -> None:
        self.kept.append(np.ascontiguousarray(rows))
        self.stream.copy_in(address, self.kept[-1])


def larger_batch(features: list[Feature], size: int) -> Batch:
    """Bags of three ids, of which many are the same, so that rows have long sums."""
    count = 3 * size * len(features)
    return Batch(np.arange(count) % 5 // 4, np.arange(0, count + 1, 3), None, size)


def test_memory_grows_and_goes_while_the_device_is_at_the_last_batch(world: World) -> None:
    """Routes, buffers of messages and partial sums; then all of it goes."""
    backend, side, memory = world.pick("device")
    features = features_of("sum")
    placement = placement_of("row", backend.size, tuple(range(backend.size)))
    exchange = exchange_of(backend, placement, features, "rows", memory=memory)
    outs = []
    with gpu.shaken(1, delay_us=20_000):
        for size in (2, 20, 200):
            batch = larger_batch(features, size)
            outs.append(side.place(np.zeros((size, exchange.output_dim), np.float32)))
            routed = exchange.route(batch.ids, batch.offsets, batch.weights, batch.size)
            exchange.reply(routed)
            exchange.forward(routed, outs[-1])
            exchange.backward(routed, outs[-1])
            del routed
        del exchange
    side.stream.synchronize()
    assert gpu.take_fault() == ""


def test_a_steady_state_allocates_nothing(world: World) -> None:
    backend, side, memory = world.pick("device")
    if side.name != "stand-in":
        pytest.skip("the driver does not tell")
    features = features_of("sum")
    placement = placement_of("row", backend.size, tuple(range(backend.size)))
    exchange = exchange_of(backend, placement, features, "rows", memory=memory)
    batch = make_batch(features, "many", True, backend.rank, True)
    out = side.place(np.zeros((batch.size, exchange.output_dim), np.float32))
    held = []
    for _ in range(4):
        routed = exchange.route(batch.ids, batch.offsets, batch.weights, batch.size)
        exchange.reply(routed)
        exchange.forward(routed, out)
        exchange.backward(routed, out)
        del routed
        held.append((gpu.held_bytes(), gpu.held_bytes(pinned=True)))
    side.stream.synchronize()
    assert held[1:] == held[:-1]


@pytest.mark.parametrize(
    ("array", "error", "text"),
    [
        (DeviceArray(64, (2, 27)), ValueError, r"expected shape \(2, 28\), got \(2, 27\)"),
        (DeviceArray(64, (28,)), ValueError, "got 1 dimensions"),
        (DeviceArray(64, (2, 28), (4, 8)), ValueError, "columns of a row must be contiguous"),
        (np.zeros((2, 28), np.float32), TypeError, "expected an array in the memory of a GPU"),
    ],
)
def test_wrong_arrays(world: World, array: Any, error: type, text: str) -> None:
    backend, _, memory = world.pick("device")
    features = [Feature("a", 0, "sum"), Feature("b", 1, "sum")]
    placement = placement_of("table", backend.size, tuple(range(backend.size)))
    exchange = exchange_of(backend, placement, features, "rows", memory=memory)
    routed = exchange.route(np.zeros(4, np.int64), np.arange(5), None, 2)
    exchange.reply(routed)
    with pytest.raises(error, match=text):
        exchange.forward(routed, array)


def test_element_types_of_other_libraries() -> None:
    class Foreign:
        def __init__(self, typestr: str) -> None:
            self.__cuda_array_interface__ = {
                "data": (4096, False), "shape": (3, 4), "typestr": typestr, "version": 3,
            }  # fmt: skip

    assert as_device_array(Foreign("<f4")).spec == (4096, (3, 4), (16, 4), 0)
    assert as_device_array(Foreign("<u2")).spec == (4096, (3, 4), (8, 2), 1)
    with pytest.raises(TypeError, match="expected float32, float16, or bfloat16"):
        as_device_array(Foreign("<f8"))


def test_too_many_sequences(world: World) -> None:
    backend, _, memory = world.pick("device")
    features = [Feature(f"s{i}", 0, "none") for i in range(_native.MAX_SEQUENCES + 1)]
    placement = placement_of("table", backend.size, tuple(range(backend.size)))
    with pytest.raises(ValueError, match="129 features with pooling 'none'; on a GPU at most 128"):
        exchange_of(backend, placement, features, "rows", memory=memory)
