"""World, roles, data, models, pipeline and trainer: what turns exchange and storage into training.

What a program of one's own needs can be imported from here; it is loaded when first asked for, so
that readers, for one, do not bring torch and MPI with them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fourfold.runtime.assembly import embedding_bags
    from fourfold.runtime.data.batch import Batch
    from fourfold.runtime.embedding import EmbeddingBags, Embeddings
    from fourfold.runtime.roles import RolesConfig
    from fourfold.runtime.table import EmbeddingConfig, TableConfig
    from fourfold.runtime.train_config import TrainConfig
    from fourfold.runtime.trainer import Trainer
    from fourfold.runtime.world import World

_HOMES = {
    "Batch": "data.batch",
    "EmbeddingBags": "embedding",
    "EmbeddingConfig": "table",
    "Embeddings": "embedding",
    "RolesConfig": "roles",
    "TableConfig": "table",
    "TrainConfig": "train_config",
    "Trainer": "trainer",
    "World": "world",
    "embedding_bags": "assembly",
}

__all__ = [
    "Batch",
    "EmbeddingBags",
    "EmbeddingConfig",
    "Embeddings",
    "RolesConfig",
    "TableConfig",
    "TrainConfig",
    "Trainer",
    "World",
    "embedding_bags",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
