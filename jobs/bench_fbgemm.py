"""FBGEMM's embedding bags on the GPU, for `fourfold bench device`, where it is installed."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

OPTIMIZERS = {"sgd": "EXACT_SGD", "rowwise_adagrad": "EXACT_ROWWISE_ADAGRAD"}


class Fbgemm:
    """The same tables, ids and optimizer; sums of bags of equal length.

    batches: ids by table, of each batch. dtype: of rows, outputs and gradients.
    """

    def __init__(
        self,
        rows: int,
        dim: int,
        pooling: int,
        dtype: str,
        optimizer: str,
        batches: Sequence[Sequence[NDArray[np.int64]]],
    ) -> None:
        from fbgemm_gpu.split_embedding_configs import EmbOptimType, SparseType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import (
            BoundsCheckMode,
            EmbeddingLocation,
            PoolingMode,
        )
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
        )

        tables, ids = len(batches[0]), len(batches[0][0])
        place = (EmbeddingLocation.DEVICE, ComputeDevice.CUDA)
        number = SparseType.FP16 if dtype == "fp16" else SparseType.FP32
        self._layer: Any = SplitTableBatchedEmbeddingBagsCodegen(
            [(rows, dim, *place)] * tables,
            optimizer=getattr(EmbOptimType, OPTIMIZERS[optimizer]),
            learning_rate=0.01,
            pooling_mode=PoolingMode.SUM,
            weights_precision=number,
            output_dtype=number,
            bounds_check_mode=BoundsCheckMode.NONE,
            device=torch.device("cuda"),
        )
        self._layer.init_embedding_weights_uniform(-0.01, 0.01)
        self._ids = [torch.from_numpy(np.concatenate(batch)).cuda() for batch in batches]
        self._offsets = torch.arange(0, tables * ids + 1, pooling, device="cuda")
        self._outputs = [self._layer(ids, self._offsets) for ids in self._ids]
        self._gradient = torch.randn_like(self._outputs[0]) * 1e-3

    @staticmethod
    def installed() -> bool:
        """Whether it can be imported."""
        try:
            importlib.import_module("fbgemm_gpu")
        except (ImportError, OSError):
            return False
        return True

    def gather(self, turn: int) -> None:
        """Enqueue the forward of a batch."""
        self._layer(self._ids[turn % len(self._ids)], self._offsets)

    def update(self, turn: int) -> None:
        """Enqueue backward and optimizer of a batch."""
        self._outputs[turn % len(self._ids)].backward(self._gradient, retain_graph=True)
