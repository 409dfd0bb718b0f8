"""What a batch's ids need before rows can be moved, in the memory of a GPU."""

from __future__ import annotations

from fourfold.storage import _native


class DeviceIds:
    """Hashed ids, distinct ids, ids by bucket, and positions by slot.

    The results are those of the native code on the host, bit for bit, on every run. Arrays are
    named by their addresses in the memory of the GPU, streams by their handles (CUstream; 0: the
    default one); what is there is not checked. Memory is kept from call to call: calls are on one
    stream, or on streams that wait for each other, from one thread at a time. DeviceError if the
    device has too little.
    """

    def __init__(self, device: _native.Device) -> None:
        self._device = device
        self._distinct = _native.DeviceDistinct(device)
        self._buckets = _native.DeviceBuckets(device)
        self._groups = _native.DeviceGroups(device)

    def hash(self, raw: int, ids: int, n: int, *, limit: int, stream: int = 0) -> None:
        """Write the ids (n,) uint64 below `limit` that stand for raw (n,) uint64; may be one array.

        For tables that hash their ids: two raw ones may become one, so this comes before
        `distinct`. Enqueued: does not wait.
        """
        _native.device_hash_ids(self._device, raw, ids, n, limit, stream)

    def distinct(
        self,
        ids: int,
        n: int,
        *,
        distinct: int,
        inverse: int,
        count: int = 0,
        first: int = 0,
        segments: int = 0,
        segment_first: int = 0,
        stream: int = 0,
    ) -> int:
        """Find the distinct ones of ids (n,) uint64, n < 2**30 (else ValueError); returns how many.

        distinct: (n,) uint64, receives them in order of first occurrence. inverse: (n,) uint32,
        where each id is in it. count, unless 0: (n,) uint32, how often each of them occurs.

        first, unless 0: (segments + 1,) uint64, rising from 0 to n: where the ids of each segment
        begin. Equal ids of two segments are two then, `distinct` has the segments one after the
        other, and segment_first, unless 0, (segments + 1,) uint32, receives where each begins.
        Waits for the stream.
        """
        self._distinct.find(
            ids, n, first, segments, distinct, inverse, count, segment_first, stream
        )
        return self._distinct.total(stream)

    def deal(
        self,
        ids: int,
        n: int,
        *,
        table: int,
        buckets: int,
        limit: int,
        dynamic: bool,
        hashed: bool,
        bucket: int,
        place: int,
        position: int,
        bucket_first: int,
        stream: int = 0,
    ) -> None:
        """Sort ids (n,) int64, n < 2**32, of a table by bucket, as they travel between ranks.

        table: its ordinal. limit: ids are below it; if `hashed` any, and they are hashed here.
        bucket: (n,) uint32, receives that of each id. position: (n,) uint64, bucket by bucket, in a
        bucket in the order of the batch: the position in the bucket, of a dynamic table the id.
        place: (n,) uint32, where each id is in it. bucket_first: (buckets + 1,) uint32, where each
        bucket begins. Enqueued: does not wait.
        """
        if buckets < 1:
            raise ValueError(f"DeviceIds.deal: at least one bucket, got {buckets}")
        self._buckets.deal(
            *(ids, n, table, buckets, limit, dynamic, hashed),
            *(bucket, place, position, bucket_first, stream),
        )

    def group(
        self,
        slots: int,
        n: int,
        *,
        limit: int,
        entry: int,
        group_slot: int,
        group_first: int,
        stream: int = 0,
    ) -> tuple[int, int]:
        """Group positions by slots (n,) uint32, n < 2**32; returns groups, and positions in them.

        Slots are below `limit`, or 2**32 - 1 where a position is to be in no group. entry: (n,)
        uint32, receives the positions, slots rising and positions of a slot rising, then those in
        no group. group_slot: (n,) uint32, the slot of each group. group_first: (n + 1,) uint32,
        where each begins in `entry`, and behind them where the last one ends. Waits for the stream.
        """
        self._groups.group(slots, n, limit, entry, group_slot, group_first, stream)
        return self._groups.totals(stream)
