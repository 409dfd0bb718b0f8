"""Multi-layer perceptrons: the dense trunk of every model here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class Mlp(nn.Sequential):
    """Linear layers with ReLU between them: (B, sizes[0]) -> (B, sizes[-1]).

    `last_relu` adds one after the last layer, as DLRM's bottom has it.
    """

    def __init__(self, sizes: Sequence[int], *, last_relu: bool) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU(inplace=True)]
        super().__init__(*(layers if last_relu else layers[:-1]))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers in order."""
        for layer in self:
            x = layer(x)
        return x
