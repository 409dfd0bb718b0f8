"""DLRM: Naumov et al., "Deep Learning Recommendation Model for Personalization and Recommendation
Systems", 2019."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fourfold.runtime.embedding import Embeddings
from fourfold.runtime.models.interaction import PairwiseDots
from fourfold.runtime.models.mlp import Mlp


class DotHead(nn.Module):
    """Pairwise dots of F vectors, `dim` wide, and the top MLP over the first vector and the dots.

    top: hidden sizes; the MLP ends in 1.
    """

    def __init__(self, num_vectors: int, dim: int, top: Sequence[int]) -> None:
        super().__init__()
        self.dim = dim
        self.dots = PairwiseDots(num_vectors)
        self.top = Mlp([dim + self.dots.num_pairs, *top, 1], last_relu=False)

    def forward(self, first: Tensor, vectors: Tensor) -> Tensor:
        """Map (B, dim) and (B, F * dim), which begins with the same, to (B, 1)."""
        dots = self.dots(vectors.view(len(vectors), -1, self.dim))
        logits: Tensor = self.top(torch.cat([first, dots], 1))
        return logits


class Dlrm(nn.Module):
    """Bottom MLP on the dense features, pairwise dots with the embeddings, top MLP to one logit.

    num_dense: dense features. num_sparse: pooled features, all `dim` wide. bottom, top: hidden
    sizes; the bottom MLP ends in `dim`, the top one in 1.
    """

    graphed = ("bottom", "head")

    def __init__(
        self, num_dense: int, num_sparse: int, dim: int, bottom: Sequence[int], top: Sequence[int]
    ) -> None:
        super().__init__()
        self.bottom = Mlp([num_dense, *bottom, dim], last_relu=True)
        self.head = DotHead(num_sparse + 1, dim, top)

    def forward(self, dense: Tensor, embeddings: Embeddings) -> Tensor:
        """Map (B, num_dense) and (B, num_sparse * dim) to logits (B,).

        The bottom MLP runs before the embeddings are asked for, so it overlaps their exchange.
        """
        bottom = self.bottom(dense)
        logits: Tensor = self.head(bottom, embeddings.after(bottom))
        return logits.squeeze(1)
