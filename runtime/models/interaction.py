"""DLRM's dot interaction, as two batched products and no scatter.

Letters: B batch, F feature vectors (one dense, the others embeddings), D their width, P = F (F - 1)
/ 2 pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class PairwiseDots(nn.Module):
    """All pairwise dot products of F vectors: (B, F, D) -> (B, P), P = F (F - 1) / 2.

    Pairs are the strict lower triangle, row by row (Naumov et al., "Deep Learning Recommendation
    Model", 2019, section 2). PyTorch's own backward of the triangle is a scatter; here the gradient
    of the symmetric matrix is gathered, and one product gives the gradient of all vectors.
    """

    pairs: Tensor  # (P,) int64: where each pair lies in the flattened F x F matrix
    mirror: Tensor  # (F * F,) int64: for each entry of the matrix its pair, P on the diagonal

    def __init__(self, num_features: int) -> None:
        super().__init__()
        # By NumPy: the planner makes models on the meta device, where PyTorch would first import
        # its compiler, for a second.
        row, column = np.tril_indices(num_features, -1)
        mirror = np.full((num_features, num_features), len(row))
        mirror[row, column] = mirror[column, row] = np.arange(len(row))
        pairs = torch.tensor(row * num_features + column)
        self.register_buffer("pairs", pairs, persistent=False)
        self.register_buffer("mirror", torch.tensor(mirror.flatten()), persistent=False)

    @property
    def num_pairs(self) -> int:
        """P."""
        return len(self.pairs)

    def forward(self, vectors: Tensor) -> Tensor:
        """Map (B, F, D) to (B, P)."""
        dots: Tensor = _PairwiseDots.apply(  # type: ignore[no-untyped-call]
            vectors, self.pairs, self.mirror
        )
        return dots


class _PairwiseDots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, pairs: Tensor, mirror: Tensor) -> Tensor:
        ctx.save_for_backward(vectors, mirror)
        dots = torch.bmm(vectors, vectors.transpose(1, 2))
        return dots.flatten(1).index_select(1, pairs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        vectors, mirror = ctx.saved_tensors
        batch, features, _ = vectors.shape
        symmetric = functional.pad(grad.to(vectors.dtype), (0, 1)).index_select(1, mirror)
        return torch.bmm(symmetric.view(batch, features, features), vectors), None, None
