"""A pad whose rows lie in the memory of the stand-in, for tests that know nothing of GPUs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import gpu

from fourfold.storage import Pad, RowSpec, _native

IN_PLACE_FROM = 64
"""Bytes: smaller records go through buffers, so that both ways are taken."""


@functools.cache
def device() -> Any:
    """The stand-in, for all pads of this process."""
    return gpu.open_device("stand-in", _native)


def budget_of(specs: Sequence[RowSpec]) -> int:
    """Bytes for all rows of static tiles and some of dynamic ones: they are taken at once."""
    room = sum(spec.row_bytes * (40000 if spec.dynamic else spec.rows) for spec in specs)
    return min(2 * room + len(specs) * (64 << 10), 32 << 20) // 4096 * 4096


class DevicePad(Pad):
    """Takes addresses of the host, which the stand-in can follow, and waits for what it began."""

    def __init__(self, specs: Any, *, budget_bytes: int | None = None, **options: Any) -> None:
        budget = budget_of(specs) if budget_bytes is None else budget_bytes
        super().__init__(specs, budget_bytes=budget, device=device(), **options)
        _native.set_in_place(self._native, IN_PLACE_FROM, IN_PLACE_FROM)

    def gather(self, *args: Any, **options: Any) -> None:
        super().gather(*args, **options)
        gpu.driver().synchronize()

    def update(self, *args: Any, **options: Any) -> None:
        super().update(*args, **options)
        gpu.driver().synchronize()
