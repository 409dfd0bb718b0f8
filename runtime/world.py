"""The world: the ranks that `mpirun` started, and the nodes they live on."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True, slots=True)
class World:
    """This rank among all ranks. Plain data: planning for any world needs no MPI."""

    rank: int
    """This rank."""
    nodes: tuple[int, ...]
    """Node of every rank. Nodes are numbered by the lowest rank that lives on them."""
    hosts: tuple[str, ...]
    """Host name of every node."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"rank {self.rank} does not exist in a world of {self.size} ranks")
        if tuple(dict.fromkeys(self.nodes)) != tuple(range(len(self.hosts))):
            raise ValueError(
                f"nodes must be numbered 0 to {len(self.hosts) - 1} in order of their lowest rank,"
                f" got {self.nodes}"
            )

    @classmethod
    def from_mpi(cls, comm: MPI.Intracomm) -> World:
        """Find out who lives where. Collective over `comm`.

        Ranks share a node if they can share memory (MPI_COMM_TYPE_SHARED), whatever their hosts
        are called.
        """
        from mpi4py import MPI

        shared = comm.Split_type(MPI.COMM_TYPE_SHARED, key=comm.rank)
        leader = shared.bcast(comm.rank)  # the lowest rank of the node
        shared.Free()
        everyone: list[tuple[int, str]] = comm.allgather((leader, socket.gethostname()))
        leaders = sorted({leader for leader, _ in everyone})
        return cls(
            rank=comm.rank,
            nodes=tuple(leaders.index(leader) for leader, _ in everyone),
            hosts=tuple(everyone[leader][1] for leader in leaders),
        )

    @classmethod
    def imagine(cls, size: int, ranks_per_node: int | None = None, rank: int = 0) -> World:
        """Return a world of `size` ranks that need not exist, filled node by node."""
        if size < 1 or (ranks_per_node is not None and ranks_per_node < 1):
            raise ValueError(f"no world has {size} ranks, {ranks_per_node} on a node")
        nodes = tuple(r // (ranks_per_node or size) for r in range(size))
        hosts = tuple(f"node{node}" for node in range(nodes[-1] + 1))
        return cls(rank=rank, nodes=nodes, hosts=hosts)

    @property
    def size(self) -> int:
        """Number of ranks."""
        return len(self.nodes)

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return len(self.hosts)

    @property
    def node(self) -> int:
        """Node of this rank."""
        return self.nodes[self.rank]

    @property
    def host(self) -> str:
        """Host name of this rank's node."""
        return self.hosts[self.node]

    @property
    def local_rank(self) -> int:
        """Number of lower ranks on this node."""
        return self.nodes[: self.rank].count(self.node)

    @property
    def local_size(self) -> int:
        """Number of ranks on this node."""
        return self.nodes.count(self.node)

    def __str__(self) -> str:
        ranks = f"{self.size} rank{'s' * (self.size > 1)}"
        if self.num_nodes == 1:
            return f"{ranks} on {self.hosts[0]}"
        return f"{ranks} on {self.num_nodes} nodes ({', '.join(self.hosts)})"
