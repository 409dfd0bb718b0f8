"""Which new ids get a row, and what scores become, decided in the memory of a GPU."""

from __future__ import annotations

from collections.abc import Sequence

from fourfold.storage import _native
from fourfold.storage.reclaim import Admission


class DeviceAdmission:
    """Who of a rank's ids without a row gets one.

    Answers, and what is remembered after them, are bit for bit those of `_native.Admission` for
    the same calls in the same order; the keys of one call count as calls one after the other, also
    equal ones. Arrays are named by their addresses in the memory of the GPU, streams by their
    handles (CUstream; 0: the default one); what is there is not checked. Calls are on one stream,
    or on streams that wait for each other, from one thread at a time.

    by_tile: the policy of each tile. num_bytes: for what is remembered, shared by all tiles that do
    (ValueError if there is no room for a line). DeviceError if the device has too little memory.
    """

    def __init__(
        self, device: _native.Device, by_tile: Sequence[Admission], num_bytes: int, seed: int
    ) -> None:
        specs = [
            _native.AdmissionSpec(a.code, probability=a.probability, count=a.count) for a in by_tile
        ]
        self._native = _native.DeviceAdmission(device, specs, num_bytes, seed)

    @property
    def bytes(self) -> int:
        """Memory of the device for what is remembered."""
        return self._native.bytes

    def admit(
        self,
        tile: int,
        keys: int,
        sightings: int,
        n: int,
        *,
        batch: int,
        admitted: int,
        stream: int = 0,
    ) -> None:
        """Decide about keys (n,) uint64 of a tile, n < 2**32; IndexError if there is no such tile.

        sightings: (n,) uint32, how often the batch of that number names each, at least once.
        admitted: (n,) bool, receives the answers. Enqueued; with "bloom" it waits for the stream.
        """
        self._native.admit(tile, keys, sightings, n, batch, admitted, stream)

    def estimate(self, tile: int, keys: int, estimates: int, n: int, stream: int = 0) -> None:
        """Write what is remembered of keys (n,) uint64 to estimates (n,) uint32, 0 to 15.

        "bloom" knows 0 and 1, other kinds 0. Enqueued: does not wait.
        """
        self._native.estimate(tile, keys, estimates, n, stream)


def credit_scores(
    device: _native.Device,
    decay: _native.Decay,
    *,
    scores: int,
    intervals: int,
    credits: int,
    credited: int,
    n: int,
    stream: int = 0,
) -> None:
    """Write to credited (n,) uint16 what scores (n,) uint16 become (native/score.h).

    intervals: (n,) uint32, since each was last brought up to date. credits: (n,) float32, to be
    added. `credited` may be `scores`. Enqueued: does not wait.
    """
    _native.device_credit_scores(device, decay, scores, intervals, credits, credited, n, stream)
