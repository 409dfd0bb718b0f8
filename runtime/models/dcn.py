"""DCNv2: Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons", WWW 2021."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fourfold.runtime.embedding import Embeddings
from fourfold.runtime.models.mlp import Mlp


class LowRankCross(nn.Module):
    """Cross layers of rank r: x_{l+1} = x_0 * (U_l V_l x_l + b_l) + x_l  (section 3.2, equation 2).

    Maps (B, width) to (B, width).
    """

    def __init__(self, width: int, layers: int, rank: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Linear(width, rank, bias=False) for _ in range(layers))
        self.up = nn.ModuleList(nn.Linear(rank, width) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """Apply every cross layer."""
        crossed = x
        for down, up in zip(self.down, self.up, strict=True):
            crossed = torch.addcmul(crossed, x, up(down(crossed)))
        return crossed


class DcnV2(nn.Module):
    """Bottom MLP, then the head over [bottom, embeddings]: low-rank cross layers and the top MLP
    ("stacked" structure).

    num_dense: dense features. pooled_width: width of all pooled features together. dim: width that
    the bottom MLP ends in.
    """

    graphed = ("bottom", "head")

    def __init__(
        self,
        num_dense: int,
        pooled_width: int,
        dim: int,
        bottom: Sequence[int],
        top: Sequence[int],
        *,
        cross_layers: int,
        cross_rank: int,
    ) -> None:
        super().__init__()
        width = dim + pooled_width
        self.bottom = Mlp([num_dense, *bottom, dim], last_relu=True)
        self.head = nn.Sequential(
            LowRankCross(width, cross_layers, cross_rank), Mlp([width, *top, 1], last_relu=False)
        )

    def forward(self, dense: Tensor, embeddings: Embeddings) -> Tensor:
        """Map (B, num_dense) and (B, pooled_width) to logits (B,)."""
        logits: Tensor = self.head(embeddings.after(self.bottom(dense)))
        return logits.squeeze(1)
