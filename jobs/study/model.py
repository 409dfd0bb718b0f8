"""The dense model of the studies: small, so that what they compare are the rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fourfold.runtime.embedding import Embeddings
from fourfold.runtime.models.mlp import Mlp

HIDDEN = (64, 32)


class ClickNet(nn.Module):
    """Dense features and all embeddings side by side, then an MLP to one logit.

    num_dense: dense features. width: columns of all pooled features together.
    """

    def __init__(self, num_dense: int, width: int) -> None:
        super().__init__()
        self.top = Mlp([num_dense + width, *HIDDEN, 1], last_relu=False)

    def forward(self, dense: Tensor, embeddings: Embeddings) -> Tensor:
        """Map (B, num_dense) and (B, width) to logits (B,)."""
        logits: Tensor = self.top(embeddings.after(dense))
        return torch.squeeze(logits, 1)
