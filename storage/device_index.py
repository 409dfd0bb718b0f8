"""The key index of a table that lies whole in the memory of a GPU."""

from __future__ import annotations

from fourfold.storage import _native

ABSENT = 2**32 - 1
"""The slot of a key that is not in the index."""


class DeviceIndex:
    """Exact map of uint64 keys, all of them legal, to uint32 slots, in the memory of a GPU.

    Does what `_native.Index` does on the host, with equal results. Arrays are named by their
    addresses in that memory, streams by their handles (CUstream; 0: the default one); what is
    there is not checked. Finds may run together; anything else needs exclusive access, and streams
    that wait for each other. Batches have fewer than 2**30 keys (else ValueError).

    device: kept until the index goes. expected: keys that come without growth, which never needs
    both the old memory and the new then; below 2**32 - 1 (else ValueError). DeviceError if the
    device has too little memory, here and while it grows; the index is then as it was.
    """

    def __init__(self, device: _native.Device, expected: int = 0) -> None:
        self._native = _native.DeviceIndex(device, expected)

    def __len__(self) -> int:
        return len(self._native)

    @property
    def bytes(self) -> int:
        """Memory of the device that holds the keys: 17 to 26 bytes for each."""
        return self._native.bytes

    @property
    def batch_bytes(self) -> int:
        """Memory of the device that is kept for the next batch."""
        return self._native.batch_bytes

    def growth(self, keys: int) -> int:
        """Bytes that so many new keys make it take at once; `bytes` of today are given back after.

        0 if there is room. ValueError from 2**32 - 1 keys in all.
        """
        return self._native.growth(keys)

    def find(self, keys: int, slots: int, n: int, stream: int = 0) -> None:
        """Look up keys (n,) uint64; slots (n,) uint32 receives their slots, ABSENT for absent ones.

        Enqueued: does not wait.
        """
        self._native.find(keys, slots, n, stream)

    def insert(
        self,
        keys: int,
        slots: int,
        n: int,
        *,
        first: int = 0,
        free: int = 0,
        num_free: int = 0,
        stream: int = 0,
    ) -> int:
        """Look up keys (n,) uint64, enter absent ones, and return how many did.

        New keys get slots in the order in which the batch first names them: `first`, `first` + 1,
        ...; or, if `free` is given, those of the array (num_free,) uint32 at that address.
        OverflowError if there are too few; the index is then as it was. Waits for the stream, but
        not for the end of its own work on it.
        """
        return self._native.insert(keys, slots, n, first, free, num_free, stream)

    def erase(self, keys: int, n: int, *, slots: int = 0, stream: int = 0) -> int:
        """Remove keys (n,) uint64, and return how many of them were present.

        slots, unless 0: (n,) uint32, receives the slot that each had; ABSENT if it was absent, or
        named before in this batch. Waits for the stream.
        """
        return self._native.erase(keys, n, slots, stream)

    def items(self, keys: int, slots: int, stream: int = 0) -> None:
        """Write all keys (len,) uint64 and slots (len,) uint32, slots rising. Waits."""
        self._native.items(keys, slots, stream)

    def clear(self, stream: int = 0) -> None:
        """Forget every key and keep the memory."""
        self._native.clear(stream)

    def probes(self, stream: int = 0) -> tuple[int, int]:
        """Buckets looked at to find every key once: their sum, and the most for one key. Slow."""
        return self._native.probes(stream)

    def consistent(self, stream: int = 0) -> bool:
        """Whether all overflow counts are true and no key is there twice. Slow."""
        return self._native.consistent(stream)
