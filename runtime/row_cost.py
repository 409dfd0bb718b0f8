"""What a row costs in each tier, with what is kept beside it to find and to move it. Pure.

The numbers repeat those of storage: blocks of the pad (native/tiers.cpp) and of the host tier
(native/host_tier.cpp), pages, segments and the index of the file (native/page.h, kind.py, tier.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fourfold.runtime.load import INDEX_BYTES, META_BYTES, TableLoad, padded
from fourfold.storage import StorageConfig

if TYPE_CHECKING:
    from fourfold.runtime.tiers import Kind

RESIDENT_BYTES = 22
"""Kept beside every slot of the pad: who lives there and when it was used."""
WAITING_BYTES = 16
"""Kept beside every slot of the host tier: who lives there and whether it is written."""
ARRIVAL_BYTES = 24
"""Kept of every row of the host tier: when it came."""
BLOCK_BYTES, MANY_BLOCKS = 64 << 10, 1024
"""Memory of a tier comes in blocks of this size, smaller where the budget is small."""
LEAST_BLOCK_BYTES, MOST_BLOCK_BYTES = 4 << 10, 2 << 20
SOLE_BLOCKS = 64
"""Blocks of one tier are at most this share of its budget, and of dynamic tables at most half of
the most bytes."""
BORN_BYTES = 1 / 8
"""Kept in one tier of every row of a static table: whether it has been born."""
PAGE_BYTES = 4096
"""Records of the file come in pages of this size, or of several times it if they are larger."""
STORED_BYTES = 16
"""Key, tile and checksum of a record in the file."""
FILE_SHARE = 0.95
"""Share of the file that rows may take: rows written again leave room that is found later."""
PLACE_BYTES = 4
"""In the index of the file, of every row of a static table; of a dynamic table it is a key."""
SEGMENT_BYTES, MOST_BUFFER_BYTES = 1 << 20, 4 << 20
RESERVE = 4 / 3
"""Memory of the file's index of keys, with what is kept free for it to grow."""
SCORED_SHARE = 1 / 4
"""Share of the free host memory that index, times and scores of rows in the file may take where
these can go."""
WRITTEN_BYTES, MOST_SLACK_BYTES = 64, 3 << 20
"""Kept free, besides, while an index may grow: for every row of a write to the file, which has
1 MiB of them at most; and for writes until more can be set aside."""
TABLE_BYTES = 4 * PAGE_BYTES
"""Kept free for the file's tables of segments to grow."""


@dataclass(frozen=True, slots=True)
class RowCost:
    """Bytes of one row of a tile."""

    pad: float
    """Of a block of the pad,"""
    pad_beside: float
    """and kept beside each byte of it,"""
    pad_in_host: float
    """the same where it is in host memory, because the pad is the memory of a GPU,"""
    host: float
    """of a block of the host tier, with time and score of a row that can go,"""
    host_beside: float
    """and kept beside each byte of it,"""
    file: float
    """in the file,"""
    key: float
    """in host memory while it is in the file, to find it there, and for time and score,"""
    place: float
    """and in host memory wherever it is, if there is a file."""
    record: int
    """Without gaps."""

    @staticmethod
    def of(table: TableLoad, dim: int, storage: StorageConfig, device: Kind = "cpu") -> RowCost:
        """Price a row `dim` columns wide. device: in whose memory the pad is."""
        state = table.row_state_bytes + META_BYTES
        row = padded(dim * table.weight_bytes) + padded(dim * table.state_bytes) + state
        record = dim * (table.weight_bytes + table.state_bytes) + state
        lined = -(-record // 16) * 16 + META_BYTES
        dynamic = table.rows is None
        if storage.pad_bytes is None:
            block = _sole_block(row, table.rows, storage.pad_budget)
            pad = _in_blocks(row, 0, INDEX_BYTES if dynamic else BORN_BYTES, block)
        else:
            block = _block(row, storage.pad_budget)
            pad = _in_blocks(row, RESIDENT_BYTES, INDEX_BYTES, block)
        there = (0.0, pad[1] + _metadata(row, block)) if device == "cuda" else (pad[1], 0.0)
        beside = INDEX_BYTES + ARRIVAL_BYTES
        host = _in_blocks(lined, WAITING_BYTES, beside, _block(lined, storage.host_budget))
        key, place = (INDEX_BYTES, 0) if dynamic else (0, PLACE_BYTES)
        score = INDEX_BYTES if table.scored else 0
        return RowCost(
            pad=pad[0],
            pad_beside=there[0],
            pad_in_host=there[1],
            host=host[0] + score,
            host_beside=host[1],
            file=_in_pages(record),
            key=key * RESERVE + score,
            place=place,
            record=record,
        )


def pad_memory(storage: StorageConfig, costs: Sequence[RowCost]) -> float:
    """Give the host memory that is set aside for what is kept beside the pad of a GPU.

    costs: of the tiles of a rank. 0 on a CPU, where it is part of the pad.
    """
    return (storage.pad_budget or 0) * max((cost.pad_in_host for cost in costs), default=0.0)


def file_memory(storage: StorageConfig, costs: Sequence[RowCost]) -> float:
    """Give the host memory that a file takes besides what its rows cost; 0 without a file.

    costs: of the tiles of a rank. Buffers for reads, for writes and for a segment whose rows are
    moved, and what is kept free for the index.
    """
    file, host = storage.file_budget, storage.host_budget
    if file is None or host is None or not costs:
        return 0
    kinds = len({(cost.record, cost.file) for cost in costs})
    segment = min(max(SEGMENT_BYTES, file >> 16), file // (16 * kinds))
    page = max(_page(cost.record)[0] for cost in costs)
    buffers = 2 * max(min(file // 64, MOST_BUFFER_BYTES), page) + max(segment, page)
    indexes = sum(cost.key > 0 for cost in costs)
    if not indexes:
        return buffers + TABLE_BYTES
    written = min(1 << 20, host // 16) // max(cost.record for cost in costs)
    slack = min(MOST_SLACK_BYTES, host // 16)
    pages = min(2 * PAGE_BYTES * indexes, host // 8)
    return buffers + TABLE_BYTES + written * WRITTEN_BYTES + slack + pages


def _in_blocks(row: int, per_slot: int, per_row: float, block: int) -> tuple[float, float]:
    """Give the bytes of a row in a block, and what is kept beside each byte of the block.

    Slots of a block are a power of two.
    """
    rows = max(1, block // row)
    slots = 1 << (rows - 1).bit_length()
    return block / rows, (slots * per_slot + rows * per_row) / block


def _metadata(row: int, block: int) -> float:
    """Give the memory of metadata that is not in its block, beside each byte of the block.

    It takes whole pages.
    """
    rows = max(1, block // row)
    return -(-rows * META_BYTES // PAGE_BYTES) * PAGE_BYTES / block


def _sole_block(row: int, rows: int | None, budget: int | None) -> int:
    """Give the bytes of a block of rows that have one tier; `rows` None: of dynamic tables."""
    most = MOST_BLOCK_BYTES if budget is None else _floor(budget // SOLE_BLOCKS)
    enough = MOST_BLOCK_BYTES // 2 if rows is None else _floor(rows * row // 8)
    wanted = max(min(most, enough), 1 << (8 * row - 1).bit_length())
    return min(max(wanted, LEAST_BLOCK_BYTES), MOST_BLOCK_BYTES)


def _block(row: int, budget: int | None) -> int:
    """Give the bytes of a block of rows that have tiers below or above them."""
    wanted = MOST_BLOCK_BYTES
    if budget is not None:
        few, small = budget // MANY_BLOCKS, budget // 64
        wanted = min(max(BLOCK_BYTES, _floor(few)), _floor(small))
    wanted = max(wanted, 1 << (8 * row - 1).bit_length())
    return min(max(wanted, LEAST_BLOCK_BYTES), MOST_BLOCK_BYTES)


def _floor(n: int) -> int:
    """Give the largest power of two up to n, or 1."""
    return 1 << (max(1, n).bit_length() - 1)


def _in_pages(record: int) -> float:
    """Give the bytes of a record in the file: no page splits one."""
    page, records = _page(record)
    return page / records / FILE_SHARE


def _page(record: int) -> tuple[int, int]:
    """Give the bytes of a page, and how many records it has."""
    stored = record + STORED_BYTES
    page = -(-stored // PAGE_BYTES) * PAGE_BYTES
    return page, page // stored
