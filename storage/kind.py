"""Which rows of a file tier lie together: those with records of one kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fourfold.storage import _native
from fourfold.storage.row import RowSpec


@dataclass(frozen=True, slots=True)
class Kind:
    """Tiles whose records are equal: they share a dataset."""

    name: str
    record: np.dtype[np.void]
    segment_pages: int

    @property
    def rows_per_page(self) -> int:
        """Records in a page."""
        return _native.page_layout(self.record.itemsize)[1]

    @property
    def page(self) -> np.dtype[np.void]:
        """A page: records, then what is left of 4 KiB."""
        page_bytes, rows, stored_bytes = _native.page_layout(self.record.itemsize)
        fields = dict(self.record.fields or {})
        # HDF5 has no arrays without elements.
        names = [name for name in self.record.names or () if fields[name][0].itemsize > 0]
        end = self.record.itemsize
        stored = np.dtype(
            {
                "names": [*names, "key", "tile", "crc"],
                "formats": [*(fields[n][0] for n in names), np.uint64, np.uint32, np.uint32],
                "offsets": [*(fields[n][1] for n in names), end, end + 8, end + 12],
                "itemsize": stored_bytes,
            }
        )
        row = (stored, (rows,))
        return np.dtype(
            {"names": ["row"], "formats": [row], "offsets": [0], "itemsize": page_bytes}
        )


def kinds_of(
    specs: Sequence[RowSpec], segment_bytes: int | None, budget_bytes: int | None
) -> tuple[list[Kind], list[int]]:
    """Sort tiles by kind: the kinds, and the kind of each tile.

    Segments are 1 MiB, smaller if the budget has few of them and larger if it has very many.
    """
    records = list(dict.fromkeys(spec.record for spec in specs))
    if segment_bytes is None:
        segment_bytes = 1 << 20
        if budget_bytes is not None:
            most = max(segment_bytes, budget_bytes >> 16)
            segment_bytes = min(most, budget_bytes // (16 * max(1, len(records))))
    of_tile = [records.index(spec.record) for spec in specs]
    kinds = []
    for number, record in enumerate(records):
        page_bytes = _native.page_layout(record.itemsize)[0]
        spec = specs[of_tile.index(number)]
        states = record["state"].shape[0], record["row_state"].shape[0]
        name = f"{spec.dtype}x{spec.dim}" + "".join(
            f"_{n}{what}" for n, what in zip(states, ("state", "rowstate"), strict=True) if n
        )
        kinds.append(Kind(name, record, max(1, segment_bytes // page_bytes)))
    return kinds, of_tile
