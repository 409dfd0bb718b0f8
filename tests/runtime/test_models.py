from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from fourfold.comm.route import Feature
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.matmul import use_onednn
from fourfold.runtime.models import ModelConfig, build_model
from fourfold.runtime.models.dcn import LowRankCross
from fourfold.runtime.models.interaction import PairwiseDots
from fourfold.runtime.table import EmbeddingConfig, TableConfig, complete_tables


@dataclass
class Given:
    """Embeddings that are already there."""

    pooled: Tensor

    def after(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.pooled], 1)


def plain_dots(vectors: Tensor) -> Tensor:
    row, column = torch.tril_indices(vectors.shape[1], vectors.shape[1], -1)
    return torch.bmm(vectors, vectors.transpose(1, 2))[:, row, column]


@pytest.mark.parametrize(
    ("batch", "features", "dim"), [(5, 4, 8), (1, 2, 4), (0, 3, 4), (7, 27, 16)]
)
def test_pairwise_dots_and_their_gradient_are_those_of_the_plain_formula(
    batch: int, features: int, dim: int
) -> None:
    torch.manual_seed(1)
    ours = torch.randn(batch, features, dim, requires_grad=True)
    plain = ours.detach().clone().requires_grad_()
    got, expected = PairwiseDots(features)(ours), plain_dots(plain)
    weight = torch.randn_like(expected)
    (got * weight).sum().backward()
    (expected * weight).sum().backward()

    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(ours.grad, plain.grad)


def test_low_rank_cross_is_the_published_formula() -> None:
    torch.manual_seed(2)
    cross = LowRankCross(6, layers=2, rank=3)
    x0 = torch.randn(4, 6)
    x = x0
    for down, up in zip(cross.down, cross.up, strict=True):
        x = x0 * (x @ down.weight.T @ up.weight.T + up.bias) + x

    torch.testing.assert_close(cross(x0), x)


def tables(**changes: object):
    configs = [TableConfig(name="a"), TableConfig(name="b", **changes)]
    return complete_tables(configs, EmbeddingConfig(dim=8), ["a", "b"])


@pytest.mark.parametrize("kind", ["dlrm", "dcn"])
def test_models_give_one_logit_per_sample_and_reach_every_input(kind: str) -> None:
    complete, features = tables()
    model = build_model(ModelConfig(kind=kind, bottom=(8,), top=(8,)), 3, complete, features)
    pooled = torch.randn(5, 16, requires_grad=True)
    dense = torch.randn(5, 3, requires_grad=True)
    logits = model(dense, Given(pooled))
    logits.sum().backward()

    assert logits.shape == (5,)
    assert pooled.grad is not None
    assert (pooled.grad.abs().sum(0) > 0).all()
    assert dense.grad is not None


def test_dlrm_refuses_tables_of_unequal_dims() -> None:
    complete, features = tables(dim=4)
    with pytest.raises(ConfigError, match=r"one dim .* \[4, 8\]"):
        build_model(ModelConfig(), 3, complete, features)
    assert build_model(ModelConfig(kind="dcn"), 3, complete, features) is not None


def test_models_refuse_sequence_features_and_data_without_dense_features() -> None:
    complete, features = tables(pooling="none")
    with pytest.raises(ConfigError, match="'b' has pooling"):
        build_model(ModelConfig(), 3, complete, features)
    with pytest.raises(ConfigError, match="dense feature"):
        build_model(ModelConfig(), 0, *tables())


def test_the_fast_product_path_keeps_fp32() -> None:
    use_onednn()
    generator = torch.Generator().manual_seed(3)
    a = torch.rand(300, 415, generator=generator)
    b = torch.rand(415, 96, generator=generator)
    exact = a.double() @ b.double()

    assert ((a @ b).double() - exact).abs().div(exact).max() < 415 * 2**-24


def test_tables_take_what_they_leave_open_from_the_defaults() -> None:
    defaults = EmbeddingConfig(
        dim=32, optimizer="adam", optimizer_options={"eps": 1e-3}, reply="pooled"
    )
    configs = [
        TableConfig(name="u", features=("u1", "u2"), rows=100, dim=16),
        TableConfig(name="s", pooling="none", optimizer="sgd"),
    ]
    complete, features = complete_tables(configs, defaults, ["x", "u2", "s", "u1"])
    u, s, x = complete

    assert (u.dim, s.dim, x.dim) == (16, 32, 32)
    assert (u.optimizer_options, s.optimizer_options) == ({"eps": 1e-3}, {})
    assert (u.reply, s.reply) == ("pooled", "rows")
    assert u.init_scale == pytest.approx(0.1)
    assert x.rows is None
    assert features == (
        Feature("x", 2, "sum"),
        Feature("u2", 0, "sum"),
        Feature("s", 1, "none"),
        Feature("u1", 0, "sum"),
    )


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ([TableConfig(name="a"), TableConfig(name="a")], "listed twice"),
        ([TableConfig(name="z")], "no sparse feature 'z'"),
        ([TableConfig(name="t", features=("a",)), TableConfig(name="a")], "claimed by tables"),
        ([TableConfig(name="a", pooling="none", reply="pooled")], "needs a pooling"),
    ],
)
def test_contradicting_tables_are_named(configs: list[TableConfig], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        complete_tables(configs, EmbeddingConfig(), ["a", "b"])
