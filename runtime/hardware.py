"""What the planner believes of the machine."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from fourfold.runtime.errors import ConfigError

Kind = Literal["cpu", "cuda"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """Speeds of one rank, of which only the ratios shape a placement.

    The defaults are one core of a current server, ten ranks sharing a 200 Gb/s link. How many bytes
    of rows a rank may hold is said by `[storage]`.
    """

    memory_bytes_per_s: float = 25e9
    """Random rows read or written by one rank."""
    node_bytes_per_s: float = 6e9
    """Bytes that one rank sends (and at the same time receives) inside its node."""
    network_bytes_per_s: float = 2.5e9
    """The same between nodes: a node's link divided by its ranks."""
    latency_s: float = 2e-6
    """Fixed cost of a message between two ranks."""
    flops_per_s: float = 1e11
    """Dense arithmetic of one rank."""
    device_bytes: int = 0
    """Memory of its GPU."""


CORE = Hardware()
"""One core."""

# NVIDIA's data sheets of H100 SXM and DGX H100; nothing here was measured. Random rows are narrower
# than what HBM likes best, so they get two thirds of its 3.35 TB/s. NVLink: 900 GB/s, half of it
# each way. Network: one ConnectX-7 of 400 Gb/s per GPU. Dense: fp32 without tensor cores has
# 67 TFLOP/s, of which small matrices get half. A message is taken to cost what it does with MPI.
H100 = Hardware(
    memory_bytes_per_s=2.2e12,
    node_bytes_per_s=450e9,
    network_bytes_per_s=50e9,
    latency_s=2e-6,
    flops_per_s=33e12,
    device_bytes=80_000_000_000,
)
"""One GPU of a server with eight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HardwareConfig:
    """The `[hardware]` section: speeds of one rank, of which only the ratios shape a placement.

    What is left out is taken from the device that the ranks use: one core of a current server, ten
    ranks sharing a 200 Gb/s link, or one H100 with a 400 Gb/s link of its own. How many bytes of
    rows a rank may hold is said by `[storage]`.
    """

    # These change the placement, and so the speed only.
    memory_bytes_per_s: float | None = None
    """Random rows read or written by one rank. A core 25e9, a GPU 2.2e12."""
    node_bytes_per_s: float | None = None
    """Bytes that one rank sends (and at the same time receives) inside its node. A core 6e9, a GPU
    450e9 (NVLink; PCIe 5: 50e9)."""
    network_bytes_per_s: float | None = None
    """The same between nodes: a node's link divided by its ranks. A core 2.5e9, a GPU 50e9."""
    latency_s: float | None = None
    """Fixed cost of a message between two ranks: 2e-6."""
    flops_per_s: float | None = None
    """Dense arithmetic of one rank. A core 1e11, a GPU 33e12 (fp32)."""
    device_bytes: int | None = None
    """Memory of one GPU, for `fourfold plan` on a machine that cannot ask it: 80 GB. A run goes by
    what is free."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if value < 0 or (value == 0 and field.name != "latency_s"):
                raise ConfigError(f"{field.name} must be positive, got {value}")

    def on(self, rows: Kind, dense: Kind) -> Hardware:
        """Fill in what is left out. rows, dense: the device that holds rows, and the model's."""
        believed = {"cpu": CORE, "cuda": H100}
        values = {}
        for field in fields(self):
            device = dense if field.name == "flops_per_s" else rows
            value = getattr(self, field.name)
            values[field.name] = getattr(believed[device], field.name) if value is None else value
        return Hardware(**values)
