"""Parameters of the dense model: the same on all dense ranks, and what updates them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

from fourfold.comm.backend import Backend
from fourfold.runtime import tensors

OptimizerName = Literal["sgd", "adagrad", "adam", "adamw"]


def dense_optimizer(
    name: OptimizerName, parameters: Iterable[nn.Parameter], lr: float
) -> torch.optim.Optimizer:
    """Make the optimizer of the dense parameters; on a GPU one kernel updates many of them."""
    parameters = list(parameters)
    fused = True if any(p.is_cuda for p in parameters) else None
    match name:
        case "sgd":
            return torch.optim.SGD(parameters, lr=lr, fused=fused)
        case "adagrad":  # PyTorch 2.6 has no fused one for GPUs
            return torch.optim.Adagrad(parameters, lr=lr)
        case "adam":
            return torch.optim.Adam(parameters, lr=lr, fused=fused)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=lr, fused=fused)


def share_parameters(parameters: Iterable[nn.Parameter], backend: Backend, *, first: bool) -> None:
    """Give all dense ranks the parameters of the first one. Collective over the dense ranks."""
    for parameter in parameters:
        values = parameter.detach()
        if not first:
            values.zero_()
        # A sum with zeros: every bit survives.
        backend.start_allreduce(tensors.shared(values)).wait()
