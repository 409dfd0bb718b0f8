"""What the planner believes of the machine."""

from __future__ import annotations

from dataclasses import dataclass, fields

from fourfold.runtime.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class HardwareConfig:
    """The `[hardware]` section: speeds of one rank, of which only the ratios shape a placement.

    The defaults are one core of a current server, ten ranks sharing a 200 Gb/s link. How many bytes
    of rows a rank may hold is said by `[storage]`.
    """

    # These change the placement, and so the speed only.
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

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 0 or (value == 0 and field.name != "latency_s"):
                raise ConfigError(f"{field.name} must be positive, got {value}")
