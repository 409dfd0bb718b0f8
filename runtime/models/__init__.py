"""The models that a job file can name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from fourfold.comm.route import Feature
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.models.dcn import DcnV2
from fourfold.runtime.models.dlrm import Dlrm
from fourfold.runtime.table import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The `[model]` section."""

    kind: Literal["dlrm", "dcn"] = "dlrm"
    """"dlrm": pairwise dots (Naumov et al. 2019). "dcn": low-rank cross layers (Wang et al.
    2021)."""
    bottom: tuple[int, ...] = (512, 256)
    """Hidden sizes of the bottom MLP; it ends in the embedding dim."""
    top: tuple[int, ...] = (512, 256)
    """Hidden sizes of the top MLP; it ends in one logit."""
    cross_layers: int = 3
    """Cross layers of "dcn"."""
    cross_rank: int = 512
    """Rank of their matrices."""

    def __post_init__(self) -> None:
        for name in ("bottom", "top"):
            if any(size < 1 for size in getattr(self, name)):
                raise ConfigError(
                    f"{name}: every size must be at least 1, got {getattr(self, name)}"
                )
        for name in ("cross_layers", "cross_rank"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")


def build_model(
    config: ModelConfig, num_dense: int, tables: Sequence[Table], features: Sequence[Feature]
) -> nn.Module:
    """Build the model that a job names over its pooled features.

    Raises ConfigError where the model cannot use the tables: no dense feature, a sequence feature,
    or for "dlrm" tables of unequal dims.
    """
    if num_dense == 0:
        raise ConfigError(
            f'model "{config.kind}" needs at least one dense feature, the data have none'
        )
    for feature in features:
        if feature.pooling == "none":
            raise ConfigError(
                f'model "{config.kind}" pools every feature, but {feature.name!r} has pooling'
                ' "none"'
            )
    dims = [tables[feature.table].dim for feature in features]
    if config.kind == "dlrm":
        if len(set(dims)) != 1:
            raise ConfigError(
                'model "dlrm" needs tables of one dim for its dot products, got'
                f" {sorted(set(dims))}"
            )
        return Dlrm(num_dense, len(features), dims[0], config.bottom, config.top)
    return DcnV2(
        num_dense,
        sum(dims),
        max(dims),
        config.bottom,
        config.top,
        cross_layers=config.cross_layers,
        cross_rank=config.cross_rank,
    )
