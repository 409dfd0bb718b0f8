"""Sum the dense gradients over the dense ranks while backward still runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from fourfold.comm.backend import Backend, Reduction
from fourfold.runtime import tensors

_BUCKET_BYTES = 1 << 20


class GradientBuckets:
    """Gradients in flat buckets, each summed over the dense ranks as soon as backward has filled
    it.

    parameters: those of one module, the same on every dense rank, on one device. Their `.grad`
    become views of the buckets, so nothing is copied (as in PyTorch's DistributedDataParallel: Li
    et al., VLDB 2020, section 3.2). Buckets follow the parameters backwards and start strictly in
    that order, whatever order gradients arrive in, so that all ranks agree on what is summed with
    what. backend: takes the device's memory; None on the only dense rank. may_start: asked during
    backward; until it says so, full buckets wait for the next gradient, or `finish`.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        backend: Backend | None,
        *,
        bucket_bytes: int = _BUCKET_BYTES,
        may_start: Callable[[], bool] = lambda: True,
    ) -> None:
        self._backend = backend
        self._may_start = may_start
        self._buckets: list[Tensor] = []
        self._members: list[int] = []
        self._missing: list[int] = []
        self._next = 0
        self._handles: list[Reduction] = []
        group: list[nn.Parameter] = []
        for parameter in reversed([p for p in parameters if p.requires_grad]):
            group.append(parameter)
            if sum(p.numel() for p in group) * 4 >= bucket_bytes:
                self._add_bucket(group)
                group = []
        if group:
            self._add_bucket(group)

    def zero(self) -> None:
        """Forget the last step's gradients."""
        for bucket in self._buckets:
            bucket.zero_()
        self._missing = list(self._members)
        self._next = 0
        self._handles = []

    def finish(self) -> None:
        """Wait until every gradient is the sum over the dense ranks. Collective over them.

        A parameter that got no gradient here (a rank without samples, a layer not used) counts as
        zero.
        """
        self._missing = [0] * len(self._members)
        self._start_full_buckets()
        for handle in self._handles:
            handle.wait()

    def _add_bucket(self, group: list[nn.Parameter]) -> None:
        flat = torch.zeros(sum(p.numel() for p in group), device=group[0].device)
        number = len(self._buckets)
        start = 0
        for parameter in group:
            view = flat[start : start + parameter.numel()].view_as(parameter)
            parameter.grad = view
            start += parameter.numel()
            parameter.register_post_accumulate_grad_hook(
                lambda _, number=number: self._filled(number)
            )
        self._buckets.append(flat)
        self._members.append(len(group))

    def _filled(self, number: int) -> None:
        self._missing[number] -= 1
        if self._may_start():
            self._start_full_buckets()

    def _start_full_buckets(self) -> None:
        if self._backend is None:
            return
        while self._next < len(self._buckets) and self._missing[self._next] <= 0:
            bucket = self._buckets[self._next]
            self._handles.append(self._backend.start_allreduce(tensors.shared(bucket)))
            self._next += 1
        self._backend.progress()
