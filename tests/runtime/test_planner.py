"""The planner on any tables and any number of ranks; nothing here starts MPI."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourfold.comm.cut import Cut
from fourfold.comm.errors import PlacementError
from fourfold.comm.placement import Placement
from fourfold.runtime.cost import Prediction, predict
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.hardware import Hardware, HardwareConfig
from fourfold.runtime.load import TableLoad, Workload, growth_of, zipf_distinct
from fourfold.runtime.planner import CutConfig, PlacementConfig, Plan, plan_or_load
from fourfold.runtime.roles import Roles, RolesConfig, assign_roles
from fourfold.runtime.world import World

CRITEO = [1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194]
CRITEO += [27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572]


def criteo(dim: int = 64) -> list[TableLoad]:
    """Describe 26 one-hot tables, skewed, with row-wise Adagrad."""
    return [
        TableLoad(
            name=f"C{i + 1}",
            dim=dim,
            rows=rows,
            growth=growth_of(zipf_distinct(65536, rows), 65536),
            row_state_bytes=4,
        )
        for i, rows in enumerate(CRITEO)
    ]


def lognormal(num_tables: int, seed: int = 0) -> list[TableLoad]:
    rng = np.random.default_rng(seed)
    return [
        TableLoad(
            name=f"t{i}",
            dim=int(rng.choice([16, 32, 64, 128])),
            rows=int(rng.lognormal(9, 3)) + 1,
            lookups=float(rng.lognormal(0, 1)),
            growth=float(rng.uniform(0.6, 1)),
        )
        for i in range(num_tables)
    ]


def make(
    tables: list[TableLoad],
    num_ranks: int,
    *,
    dense: int = 0,
    embedding: int = 0,
    node: int | None = None,
    budget: int | None = None,
    config: PlacementConfig | None = None,
    batch: int = 65536,
) -> Plan:
    return plan_or_load(
        tables,
        World.imagine(num_ranks, node),
        assign_roles(num_ranks, RolesConfig(dense=dense, embedding=embedding)),
        Workload(batch_size=batch),
        config=config,
        budget_bytes=budget,
    )


@st.composite
def tables(draw: st.DrawFn) -> list[TableLoad]:
    return [
        TableLoad(
            name=f"t{i}",
            dim=draw(st.integers(1, 200)),
            rows=rows,
            expected_rows=0 if rows is not None else draw(st.integers(1, 10**6)),
            features=draw(st.integers(1, 3)),
            lookups=draw(st.floats(0, 100)),
            growth=draw(st.floats(0, 1)),
            weight_bytes=draw(st.sampled_from([2, 4])),
            state_bytes=draw(st.sampled_from([0, 4, 8])),
            row_state_bytes=draw(st.sampled_from([0, 4])),
            reply=draw(st.sampled_from(["auto", "rows", "pooled"])),
        )
        for i, rows in enumerate(
            draw(st.lists(st.none() | st.integers(1, 10**7), min_size=0, max_size=6))
        )
    ]


@settings(max_examples=60)
@given(tables(), st.data())
def test_any_tables_on_any_ranks(tables: list[TableLoad], data: st.DataObject) -> None:
    """Valid, repeatable, and never above the budget; or else an error that says why."""
    size = data.draw(st.integers(1, 12))
    dense = data.draw(st.integers(0, size))
    embedding = 0 if dense == 0 else data.draw(st.integers(max(1, size - dense), size))
    roles = assign_roles(size, RolesConfig(dense=dense, embedding=embedding))
    least = sum(table.tile_bytes(len(roles.embedding), table.dim) for table in tables)
    budget = data.draw(st.none() | st.integers(1, 3).map(lambda times: times * least + 1000))
    ask = {"dense": dense, "embedding": embedding, "node": data.draw(st.integers(1, size))}
    made = make(tables, size, budget=budget, **ask)

    made.placement.validate(roles.embedding, roles.dense)
    assert made.placement == make(tables, size, budget=budget, **ask).placement
    held = [
        sum(tables[tile.table].tile_bytes(tile.buckets, tile.dim) for tile in tiles)
        for tiles in map(made.placement.held_by, range(size))
    ]
    assert made.prediction.held.tolist() == held
    assert max(held) <= (budget or math.inf)
    for seconds in (*made.prediction.stages.values(), made.prediction.load, made.prediction.route):
        assert seconds.shape == (size,)
        assert (seconds >= 0).all()
        assert np.isfinite(seconds).all()


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 8, 26, 64, 200])
def test_load_and_bytes_are_even(num_ranks: int) -> None:
    made = make(criteo(), num_ranks, node=8)
    load, held = made.prediction.load, made.prediction.held

    assert load.max() <= 1.25 * load.mean()
    assert held.max() <= 2 * held.mean()


def test_more_ranks_never_make_the_fullest_fuller() -> None:
    """By more than 2%: placements are found by search, and tiles are not infinitely fine."""
    for seed in range(3):
        given = lognormal(20, seed)
        fullest = [
            make(given, 8 + holders, dense=8, embedding=holders).prediction.load.max()
            for holders in (1, 2, 3, 4, 6, 8, 13, 16, 32)
        ]
        assert all(b <= 1.02 * a for a, b in itertools.pairwise(fullest)), fullest


def test_a_table_that_alone_is_more_than_a_share_is_cut() -> None:
    """What fixes imbalance is cutting, not dealing."""
    others = [TableLoad(name=f"t{i}", dim=64, rows=10**5, growth=0.8) for i in range(7)]
    tables = [TableLoad(name="busy", dim=64, rows=10**5, lookups=20.0, reply="rows"), *others]
    made = make(tables, 8)
    whole = make(tables, 8, config=PlacementConfig(default=CutConfig()))

    assert len(made.placement.of_table(0)) >= 8
    assert made.prediction.load.max() < 0.3 * whole.prediction.load.max()
    assert made.prediction.load.max() < 1.05 * made.prediction.load.mean()


def test_a_tiny_table_asked_by_many_is_data_parallel() -> None:
    """One row cannot be cut, and one rank would have to send sums of it to all."""
    made = make([TableLoad(name="constant", dim=16, rows=1, reply="pooled")], 64)

    assert [tile.ranks for tile in made.placement.tiles] == [tuple(range(64))]


def test_a_table_that_may_not_be_copied_is_not() -> None:
    tiny = TableLoad(name="constant", dim=16, expected_rows=1, reply="pooled")
    alone = dataclasses.replace(tiny, copies=False)

    assert [len(tile.ranks) for tile in make([tiny], 64).placement.tiles] == [64]
    assert {len(tile.ranks) for tile in make([alone], 64).placement.tiles} == {1}


def test_more_ranks_than_tables_and_rows() -> None:
    made = make([TableLoad(name="a", dim=8, rows=2), TableLoad(name="b", dim=4, rows=3)], 100)

    assert {tile.table for tile in made.placement.tiles} == {0, 1}


@pytest.mark.parametrize(("num_tables", "num_ranks"), [(26, 64), (1000, 128), (26, 1024)])
def test_large_plans_take_seconds(num_tables: int, num_ranks: int) -> None:
    start = time.process_time()
    made = make(lognormal(num_tables), num_ranks, node=8)

    assert made.placement.world_size == num_ranks
    assert time.process_time() - start < 30  # about 1, 3 and 5 on an idle core


def test_memory_is_a_hard_limit_and_the_error_says_how_many_ranks_would_do() -> None:
    tables = criteo()
    with pytest.raises(PlacementError, match=r"each of the 4 .* at least 2\.08 GiB") as error:
        make(tables, 4, budget=2**30)
    enough = int(re.search(r"(\d+) embedding ranks would do", str(error.value))[1])  # type: ignore[index]

    assert make(tables, enough, budget=2**30).prediction.held.max() <= 2**30
    with pytest.raises(PlacementError, match="do not fit"):
        make(tables, enough - 1, budget=2**30)
    with pytest.raises(PlacementError, match="no number of ranks would do"):
        make(tables, 4, budget=1000)


def test_a_tight_budget_costs_speed_but_fits() -> None:
    """All but 1% of the memory of all ranks is needed."""
    tables = criteo()
    total = sum(table.tile_bytes(1, table.dim) for table in tables)
    made = make(tables, 8, budget=int(1.01 * total / 8))

    assert made.prediction.held.max() <= 1.01 * total / 8


def test_a_cut_of_the_job_that_leaves_too_much_on_a_rank() -> None:
    tables = [TableLoad(name="small", dim=64, rows=10), TableLoad(name="big", dim=64, rows=10**6)]
    whole = PlacementConfig(tables={"big": CutConfig()})
    with pytest.raises(PlacementError, match=r"as the job cuts them: .* 'big', has 248 MiB"):
        make(tables, 4, budget=10**8, config=whole)
    there = PlacementConfig(tables={"big": CutConfig(ranks="2")})
    with pytest.raises(PlacementError, match=r"rank 2 would hold 248 MiB, .* 95\.4 MiB"):
        make(tables, 4, budget=10**8, config=there)
    assert make(tables, 4, budget=10**8).prediction.held.max() <= 10**8


EVERYONE = tuple(range(8))


@pytest.mark.parametrize(
    ("wanted", "cut"),
    [
        (CutConfig(rows=-1), Cut(rows=4, ranks=(4, 5, 6, 7))),
        (CutConfig(columns=2, rows=-1), Cut(rows=2, columns=2, ranks=(4, 5, 6, 7))),
        (CutConfig(rows=2, columns=2), Cut(rows=2, columns=2, ranks=(4, 5, 6, 7))),
        (CutConfig(rows=8), Cut(rows=8, ranks=(4, 5, 6, 7))),
        (CutConfig(replicas=-1), Cut(replicas=4, ranks=(0, 1, 2, 3))),
        (CutConfig(rows=2, replicas=-1), Cut(rows=2, replicas=2, ranks=(4, 5, 6, 7))),
        (CutConfig(rows=-1, node=3), Cut(rows=2, ranks=(6, 7))),
        (CutConfig(ranks="6"), Cut(ranks=(6,))),
        (CutConfig(columns=2, ranks=(7, 4)), Cut(columns=2, ranks=(7, 4))),
    ],
)
def test_the_job_says_how_a_table_is_cut(wanted: CutConfig, cut: Cut) -> None:
    """On 4 dense and 4 embedding ranks, 2 on a node."""
    config = PlacementConfig(tables={"t1": wanted})
    made = make(lognormal(3), 8, dense=4, embedding=4, node=2, config=config)

    assert made.placement.of_table(1) == cut.tiles(1, made.placement.shapes[1])


def test_the_planner_finds_ranks_for_a_cut_of_the_job() -> None:
    made = make(lognormal(9), 8, config=PlacementConfig(default=CutConfig(columns=2)))
    for table in range(9):
        tiles = made.placement.of_table(table)
        assert len(tiles) == 2
        assert tiles[0].ranks != tiles[1].ranks
    assert made.prediction.load.max() < 2.5 * made.prediction.load.mean()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"t11": CutConfig()}, "placement.tables.t11: there is no such table; nearest: t1"),
        ({"t1": CutConfig(rows=3, columns=-1)}, "8 ranks cannot be divided by the 3 tiles"),
        ({"t1": CutConfig(rows=-1, node=4)}, r"node 4 does not exist; the world has 2 \(0 to 1\)"),
        ({"t1": CutConfig(replicas=3)}, "3 tiles and replicas do not fill the 8 embedding ranks"),
        ({"t1": CutConfig(ranks="8")}, "rank 8 does not exist"),
        ({"t1": CutConfig(columns=64)}, "cannot be cut into 64 column ranges"),
        ({"t1": CutConfig(replicas=2, ranks="1")}, "rank 1 is listed twice"),
    ],
)
def test_impossible_wishes_are_named(entry: dict[str, CutConfig], message: str) -> None:
    with pytest.raises(PlacementError, match=message):
        make(lognormal(3), 8, node=4, config=PlacementConfig(tables=entry))


def test_configs_check_themselves() -> None:
    for bad, message in (
        (lambda: CutConfig(rows=0), "rows must be at least 1, or -1"),
        (lambda: CutConfig(rows=-1, columns=-1), "rows and columns are both -1"),
        (lambda: CutConfig(ranks="1", node=0), "ranks or a node, not both"),
        (lambda: CutConfig(ranks="x"), "expected ranks and ranges"),
        (lambda: PlacementConfig(path="p", default=CutConfig()), "path names a whole placement"),
        (lambda: HardwareConfig(memory_bytes_per_s=0.0), "memory_bytes_per_s must be positive"),
        (lambda: Workload(batch_size=0), "batch_size must be at least 1, got 0"),
        (lambda: TableLoad(name="t", dim=4), "'t': give rows, or expected_rows"),
        (lambda: TableLoad(name="t", dim=4, rows=1, growth=1.5), "growth must be at most 1"),
        (lambda: TableLoad(name="t", dim=4, rows=1, lookups=math.nan), "lookups must be >= 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            bad()


def test_a_saved_placement_is_used_as_it_is(tmp_path: Path) -> None:
    tables = lognormal(4)
    planned = make(tables, 4).placement
    path = tmp_path / "placement.toml"
    Placement.of(planned.shapes, [Cut(ranks=(i,)) for i in range(4)], 4).save(path)
    made = make(tables, 4, config=PlacementConfig(path=str(path)))

    assert [tile.ranks for tile in made.placement.tiles] == [(0,), (1,), (2,), (3,)]
    for size, budget, message in ((8, None, "made for 4 ranks"), (4, 100, "would hold")):
        with pytest.raises(PlacementError, match=rf"placement\.toml: .*{message}"):
            make(tables, size, budget=budget, config=PlacementConfig(path=str(path)))
    with pytest.raises(PlacementError, match=r"nowhere\.toml: No such file"):
        make(tables, 4, config=PlacementConfig(path=str(tmp_path / "nowhere.toml")))


def predicted(
    table: TableLoad, cut: Cut, num_ranks: int, roles: Roles | None = None, node: int = 100
) -> Prediction:
    """Price one table on ranks where a byte of memory takes 1 s, of the wire 10 s (far: 100 s)."""
    world = World.imagine(num_ranks, node)
    hardware = Hardware(
        memory_bytes_per_s=1.0, node_bytes_per_s=0.1, network_bytes_per_s=0.01, latency_s=0.0
    )
    roles = roles or assign_roles(num_ranks, RolesConfig())
    placement = Placement.of([table.shape], [cut], num_ranks)
    workload = Workload(batch_size=8 * len(roles.dense))
    return predict(placement, [table], world, roles, workload, hardware)


def test_the_wire_by_hand() -> None:
    """Rank 0 sends 8 distinct rows of 64 bytes to each of the other requesters."""
    table = TableLoad(name="t", dim=16, rows=10**9, reply="rows")
    rows = 8 * 64
    apart = Roles(3, dense=(1, 2), embedding=(0,))

    def wire(stage: str, cut: Cut, *where: Any, **more: Any) -> Any:
        return predicted(table, cut, *where, **more).stages[stage] / rows

    whole, copies = Cut(ranks=(0,)), Cut(replicas=4, ranks=(0, 1, 2, 3))
    assert wire("forward", whole, 4) == pytest.approx([30, 10, 10, 10])
    assert wire("backward", whole, 4) == pytest.approx([30, 10, 10, 10])
    assert wire("forward", whole, 3, apart) == pytest.approx([20, 10, 10])
    assert wire("forward", whole, 4, node=2) == pytest.approx([210, 10, 100, 100])
    assert wire("forward", Cut(rows=4, ranks=(0, 1, 2, 3)), 4) == pytest.approx([7.5] * 4)
    assert wire("forward", copies, 4) == pytest.approx([0] * 4)
    assert wire("backward", copies, 4) == pytest.approx([30] * 4)
    # Two copies of each half: ranks 0 and 2 hold bucket 0, and rank 2 answers ranks 1 and 3.
    halves = Cut(rows=2, replicas=2, ranks=(0, 1, 2, 3))
    assert wire("forward", halves, 4) == pytest.approx([5, 10, 10, 5])
    assert wire("backward", halves, 4) == pytest.approx([15] * 4)
    pair = predicted(table, Cut(replicas=2, ranks=(0, 1)), 4).load
    assert pair[0] == pytest.approx(pair[1])


def test_bags_are_pooled_where_that_is_fewer_bytes() -> None:
    """20 distinct ids to a bag: sums are a twentieth of the rows; one id to a bag: the same."""
    bags = TableLoad(name="t", dim=64, rows=10**9, lookups=20.0)

    def forward(cut: Cut) -> float:
        return predicted(bags, cut, 2).stage_seconds["forward"]

    assert forward(Cut(ranks=(0,))) == pytest.approx(8 * 256 * 10)
    # Every one of four buckets has an id of nearly every bag, so sums travel four times.
    rows = forward(Cut(rows=4, ranks=(0, 1, 0, 1)))
    assert rows == pytest.approx(2 * 8 * 256 * 10, rel=0.02)
    assert forward(Cut(columns=4, ranks=(0, 1, 0, 1))) == pytest.approx(8 * 128 * 10)


def test_distinct_ids() -> None:
    """The estimate agrees with a draw, and growth carries it to other batch sizes."""
    rng = np.random.default_rng(0)
    p = np.arange(1, 100_001) ** -1.05
    draws = rng.choice(100_000, 50_000, p=p / p.sum())
    counted = len(np.unique(draws))
    load = TableLoad(name="t", dim=4, rows=100_000, growth=growth_of(counted, 50_000))

    assert zipf_distinct(50_000, 100_000) == pytest.approx(counted, rel=0.02)
    assert load.distinct(50_000) == pytest.approx(counted)
    assert load.distinct(5_000) == pytest.approx(len(np.unique(draws[:5_000])), rel=0.25)
    assert load.distinct(10**9) == 100_000
    assert load.distinct(0.5) == 0.5
    assert zipf_distinct(100, 1) == pytest.approx(1)
