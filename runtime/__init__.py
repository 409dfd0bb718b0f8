"""World, roles, data, models, pipeline and trainer: what turns exchange and storage into training.

For use as a library:

    from fourfold.runtime import Batch, EmbeddingConfig, TableConfig, TrainConfig, Trainer, embedding_bags
"""

from fourfold.runtime.assembly import embedding_bags
from fourfold.runtime.data.batch import Batch
from fourfold.runtime.embedding import EmbeddingBags, Embeddings
from fourfold.runtime.roles import RolesConfig
from fourfold.runtime.table import EmbeddingConfig, TableConfig
from fourfold.runtime.trainer import TrainConfig, Trainer
from fourfold.runtime.world import World

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
