"""The world: plain data that checks itself, and what MPI says of it."""

import socket

import pytest

from fourfold.runtime.world import World


def test_imagined_world_is_filled_node_by_node() -> None:
    world = World.imagine(5, ranks_per_node=2, rank=3)

    assert world.nodes == (0, 0, 1, 1, 2)
    assert (world.rank, world.size, world.num_nodes) == (3, 5, 3)
    assert (world.node, world.local_rank, world.local_size, world.host) == (1, 1, 2, "node1")


def test_ranks_may_be_dealt_out_in_turns() -> None:
    world = World(rank=2, nodes=(0, 1, 0, 1), hosts=("a", "b"))

    assert (world.node, world.local_rank, world.local_size, world.host) == (0, 1, 2, "a")
    assert str(world) == "4 ranks on 2 nodes (a, b)"


@pytest.mark.parametrize(
    ("rank", "nodes", "hosts"),
    [
        (2, (0, 0), ("a",)),  # no such rank
        (-1, (0,), ("a",)),
        (0, (1, 0), ("a", "b")),  # the lowest rank's node must be node 0
        (0, (0, 2), ("a", "b")),
        (0, (0, 1), ("a",)),
        (0, (), ()),
    ],
)
def test_impossible_worlds(rank: int, nodes: tuple[int, ...], hosts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"rank|nodes"):
        World(rank=rank, nodes=nodes, hosts=hosts)


@pytest.mark.parametrize(("size", "ranks_per_node"), [(0, None), (-1, None), (2, 0)])
def test_impossible_imagination(size: int, ranks_per_node: int | None) -> None:
    with pytest.raises(ValueError, match="no world"):
        World.imagine(size, ranks_per_node)


@pytest.mark.mpi
def test_from_mpi(comm) -> None:
    world = World.from_mpi(comm)

    assert (world.rank, world.size) == (comm.rank, comm.size)
    assert world.nodes == (0,) * comm.size  # the tests run on one machine
    assert (world.local_rank, world.local_size) == (comm.rank, comm.size)
    assert world.hosts == (socket.gethostname(),)


@pytest.mark.mpi(min_size=4)
def test_from_mpi_numbers_nodes_by_their_lowest_rank(comm, monkeypatch) -> None:
    class TwoNodes:
        """The communicator of these ranks as if even and odd ones lived on nodes of their own."""

        def __getattr__(self, name: str) -> object:
            return getattr(reversed_comm, name)

        def Split_type(self, kind: int, key: int) -> object:  # noqa: N802
            return reversed_comm.Split(color=1 - reversed_comm.rank % 2, key=key)

    reversed_comm = comm.Split(color=0, key=-comm.rank)
    monkeypatch.setattr(socket, "gethostname", lambda: f"host{reversed_comm.rank % 2}")

    world = World.from_mpi(TwoNodes())

    assert world.rank == comm.size - 1 - comm.rank
    assert world.nodes == tuple(rank % 2 for rank in range(comm.size))
    assert world.hosts == ("host0", "host1")
    reversed_comm.Free()
