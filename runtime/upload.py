"""What the dense model reads of a batch, brought to its device ahead of the step.

Letters: B samples of this rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fourfold.runtime.data.batch import Batch


@dataclass(frozen=True, slots=True)
class Inputs:
    """Tensors on the device; `take` them before use."""

    dense: Tensor
    """(B, num_dense) float32."""
    label: Tensor
    """(B,) float32."""
    offsets: tuple[Tensor, ...]
    """Of every unpooled feature, (B + 1,) int64: where each sample's rows begin; first is 0."""
    copied: torch.cuda.Event | None = None
    """When they are there; None on a CPU."""

    def take(self) -> Inputs:
        """Make the current stream wait for the copies; the host does not wait."""
        if self.copied is not None:
            stream = torch.cuda.current_stream(self.dense.device)
            stream.wait_event(self.copied)
            for tensor in (self.dense, self.label, *self.offsets):
                tensor.record_stream(stream)  # its memory was taken on the stream of the copies
        return self


class Upload:
    """Makes the inputs of batches: views on a CPU, copies in the background on a GPU.

    device: the model's. unpooled: positions, among all features, of those with pooling "none". May
    be called on any thread.
    """

    def __init__(self, device: torch.device, unpooled: Sequence[int] = ()) -> None:
        self._device = device
        self._unpooled = tuple(unpooled)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batch: Batch) -> Inputs:
        """Bring a batch, whose arrays may be dropped or changed from now on if it was copied."""
        tensors = [torch.from_numpy(batch.dense), torch.from_numpy(batch.label)]
        size = batch.size
        for feature in self._unpooled:
            offsets = batch.offsets[feature * size : (feature + 1) * size + 1]
            tensors.append(torch.from_numpy(offsets - offsets[0]))
        if self._stream is None:
            return Inputs(tensors[0], tensors[1], tuple(tensors[2:]))
        # The device first: a thread that never chose one is on GPU 0, and leaving the stream would
        # go back there, which makes a context on it.
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            # torch keeps the pinned memory until the stream has read it.
            there = [t.pin_memory().to(self._device, non_blocking=True) for t in tensors]
            copied = torch.cuda.Event()
            copied.record()
        return Inputs(there[0], there[1], tuple(there[2:]), copied)
