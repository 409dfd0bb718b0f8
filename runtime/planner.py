"""The planner: a placement for any tables on any ranks, from a model of what it costs.

1. A table that the job places is placed so. Every other one becomes a grid of buckets x column
   ranges; or data-parallel, if it has too few rows to be cut and would be the fullest rank's load.
2. A threshold decides how finely: each table gets the grid with the least total cost of those whose
   tiles cost no more than the threshold and fit a rank. Several thresholds, as fractions of the
   mean load of a rank, are tried: columns and buckets both cost something, so finer is not better.
3. The tiles are dealt to the ranks (`fourfold.runtime.balance`), bytes per rank being a hard limit.
4. The placement with the shortest predicted step wins; coarser wins a tie.
5. If bytes are uneven, the same is tried with tighter limits: memory that one rank alone needs is
   memory that all ranks must have, so two hundredths of a step are not too much for it.

Where a table's tiles lie relative to each other does not matter to a flat all-to-all, so nothing is
gained by keeping them on one node; a job can still ask for it (`node`).

Letters: T tables, R ranks, E embedding ranks.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fourfold.comm.cut import Cut
from fourfold.comm.errors import PlacementError
from fourfold.comm.placement import Placement
from fourfold.runtime.balance import Items, balance
from fourfold.runtime.cost import Prediction, tile_cost
from fourfold.runtime.cut_config import CutConfig, PlacementConfig
from fourfold.runtime.grid import Grid, choose, price_grid, table_grids
from fourfold.runtime.hardware import Hardware
from fourfold.runtime.load import TableLoad, Workload
from fourfold.runtime.problem import Problem, make_problem
from fourfold.runtime.roles import Roles
from fourfold.runtime.world import World

__all__ = ["CutConfig", "Hardware", "PlacementConfig", "Plan", "plan", "plan_or_load"]

FINENESS = (math.inf, 1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16)
"""Thresholds tried, as fractions of the mean load of a rank."""
WORTH = 0.995
"""A finer cut must shorten the predicted step to this."""
EVENNESS = (1.05, 1.3, 2.0)
"""Bytes on the fullest rank that are aimed at, as multiples of the mean."""
EVEN_COST = 1.02
"""A placement with evener bytes may lengthen the predicted step to this."""
REPLICA_SHARE = 0.5
"""Replicas may take this share of a rank's budget."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A placement and what it is expected to cost."""

    placement: Placement
    prediction: Prediction


def plan(
    tables: Sequence[TableLoad],
    world: World,
    roles: Roles,
    workload: Workload,
    *,
    hardware: Hardware | None = None,
    config: PlacementConfig | None = None,
    budget_bytes: int | None = None,
) -> Plan:
    """Place the tables. Pure and deterministic, for any number of ranks; needs no MPI.

    budget_bytes: rows, optimizer state and index that one rank may hold; None for no limit. Raises
    PlacementError for a cut that a table cannot have, for entries of unknown tables, and where the
    tables do not fit: with the bytes each rank would need and the number of ranks that would do.
    """
    problem = make_problem(tables, world, roles, workload, hardware, budget_bytes)
    config = config or PlacementConfig()
    _check_names(config, problem.tables)
    cuts: list[Cut | None] = []
    options: list[list[Grid]] = []
    rates = problem.rates
    for table in problem.tables:
        wanted = config.cut_of(table.name)
        cuts.append(wanted.resolve(table.name, world, roles) if wanted else None)
        if cuts[-1] is not None:
            options.append([])
        elif wanted is not None:
            options.append([price_grid(table, wanted.rows, wanted.columns, workload, rates)])
        else:
            options.append(table_grids(table, len(roles.embedding), workload, rates))
    base = problem.predict(problem.place(cuts))
    problem.check_budget(base, "the tables that the job places itself: ")
    best = _fastest(problem, cuts, options, base)
    if best is None:
        left = [i for i, cut in enumerate(cuts) if cut is None]
        raise problem.no_room(base, left, [min(g.num_bytes for g in options[i]) for i in left])
    free = [table.copies and config.cut_of(table.name) is None for table in problem.tables]
    copied = _replicate(problem, cuts, options, free)
    if copied != cuts:
        other = _fastest(problem, copied, options, problem.predict(problem.place(copied)))
        if other and other.prediction.step_seconds < WORTH * best.prediction.step_seconds:
            best = other
    best.placement.validate(roles.embedding, roles.dense)
    return best


def plan_or_load(
    tables: Sequence[TableLoad],
    world: World,
    roles: Roles,
    workload: Workload,
    *,
    hardware: Hardware | None = None,
    config: PlacementConfig | None = None,
    budget_bytes: int | None = None,
) -> Plan:
    """Load the placement that `config.path` names, or else `plan` one.

    Raises PlacementError, naming the file, for a placement that cannot be.
    """
    if config is None or config.path is None:
        return plan(
            tables,
            world,
            roles,
            workload,
            hardware=hardware,
            config=config,
            budget_bytes=budget_bytes,
        )
    problem = make_problem(tables, world, roles, workload, hardware, budget_bytes)
    shapes = [table.shape for table in problem.tables]
    try:
        text = Path(config.path).read_text(encoding="utf-8")
        placement = Placement.from_toml(text, shapes, world.size)
        placement.validate(roles.embedding, roles.dense)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise PlacementError(f"{config.path}: {reason}") from error
    prediction = problem.predict(placement)
    problem.check_budget(prediction, f"{config.path}: ")
    return Plan(placement, prediction)


def _check_names(config: PlacementConfig, tables: Sequence[TableLoad]) -> None:
    names = [table.name for table in tables]
    for name in config.tables:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"nearest: {near[0]}" if near else f"tables: {', '.join(names)}"
            raise PlacementError(f"placement.tables.{name}: there is no such table; {hint}")


def _replicate(
    problem: Problem,
    cuts: Sequence[Cut | None],
    options: Sequence[Sequence[Grid]],
    free: Sequence[bool],
) -> list[Cut | None]:
    """Make tables data-parallel that would weigh less so on the fullest rank, smallest first.

    Gradients go to all replicas, so in total they cost more than any other cut; but a table of few
    rows cannot be cut far enough to spread what many requesters ask of it. Only where all dense
    ranks hold rows anyway: elsewhere it is for the job to say.
    """
    cuts = list(cuts)
    dense, num_embedding = problem.roles.dense, len(problem.roles.embedding)
    if len(dense) == 1 or not set(dense) <= set(problem.roles.embedding):
        return cuts
    rates, room = problem.rates, problem.budget * REPLICA_SHARE
    mean = sum(min(g.total for g in grids) for grids in options if grids) / num_embedding
    whole = [tile_cost(t, 1, t.dim, problem.workload, len(dense)) for t in problem.tables]
    for ordinal in sorted(range(len(whole)), key=lambda i: (whole[i].held_bytes, i)):
        if not free[ordinal] or whole[ordinal].held_bytes > room:
            continue
        finest = min(grid.seconds for grid in options[ordinal])
        copied = rates.serve_seconds(whole[ordinal], replicas=len(dense))
        if finest > mean and copied < finest:
            cuts[ordinal] = Cut(replicas=len(dense), ranks=dense)
            room -= whole[ordinal].held_bytes
    return cuts


def _fastest(
    problem: Problem,
    cuts: Sequence[Cut | None],
    options: Sequence[Sequence[Grid]],
    base: Prediction,
) -> Plan | None:
    """Cut and deal the tables that have no cut yet; None if they do not fit."""
    best = _search(problem, cuts, options, base, problem.budget)
    return best and _even_out(problem, cuts, options, base, best)


def _search(
    problem: Problem,
    cuts: Sequence[Cut | None],
    options: Sequence[Sequence[Grid]],
    base: Prediction,
    budget: float,
) -> Plan | None:
    """Try every fineness for the open tables; None if no rank may hold more than `budget` bytes.

    base: what the tables cost that have their cut already.
    """
    embedding = list(problem.roles.embedding)
    open_tables = [i for i, cut in enumerate(cuts) if cut is None]
    total = base.load[embedding].sum() + sum(min(g.total for g in options[i]) for i in open_tables)
    best: Plan | None = None
    seen: set[tuple[Grid, ...]] = set()
    for fineness in (*FINENESS, 0.0):
        if fineness == 0.0 and best is not None:
            break  # the finest cut of all is only for where nothing else fits
        seconds, room = fineness * float(total) / len(embedding), budget * min(1.0, fineness)
        grids = tuple(choose(options[i], seconds, room) for i in open_tables)
        if grids in seen:
            continue
        seen.add(grids)
        dealt = _deal(grids, embedding, base, budget)
        if dealt is None:
            continue
        laid = dict(zip(open_tables, dealt, strict=True))
        placement = problem.place([laid.get(i, cut) for i, cut in enumerate(cuts)])
        prediction = problem.predict(placement)
        if best is None or prediction.step_seconds < WORTH * best.prediction.step_seconds:
            best = Plan(placement, prediction)
        elif fineness < 1 and prediction.step_seconds > best.prediction.step_seconds / WORTH:
            break  # what finer tiles cost has overtaken what they gain
    return best


def _even_out(
    problem: Problem,
    cuts: Sequence[Cut | None],
    options: Sequence[Sequence[Grid]],
    base: Prediction,
    best: Plan,
) -> Plan:
    """Find a placement with fewer bytes on the fullest rank that is about as fast."""
    mean = float(best.prediction.held[list(problem.roles.embedding)].mean())
    for share in EVENNESS:
        if share * mean >= best.prediction.held.max():
            break
        plan = _search(problem, cuts, options, base, share * mean)
        if plan is None:
            continue
        if plan.prediction.step_seconds <= EVEN_COST * best.prediction.step_seconds:
            return plan
    return best


def _deal(
    grids: Sequence[Grid], embedding: Sequence[int], base: Prediction, budget: float
) -> list[Cut] | None:
    """Give the tiles of every grid their ranks; None if some rank would hold too much.

    A grid with a tile for each rank needs no choice and weighs on all alike.
    """
    wide = [grid for grid in grids if grid.cells == len(embedding)]
    some = [grid for grid in grids if grid.cells != len(embedding)]
    cells = [grid.cells for grid in some]
    items = Items(
        costs=np.repeat([grid.seconds for grid in some], cells),
        sizes=np.repeat([float(grid.num_bytes) for grid in some], cells),
        groups=np.repeat(np.arange(len(some)), cells),
        base_costs=base.load[embedding] + sum(grid.seconds for grid in wide),
        base_sizes=base.held[embedding].astype(np.float64) + sum(grid.num_bytes for grid in wide),
        capacity=budget,
    )
    dealt = balance(items) if (items.base_sizes <= budget).all() else None
    if dealt is None:
        return None
    ranks, first = np.array(embedding)[dealt], 0
    cuts = []
    for grid in grids:
        if grid.cells == len(embedding):
            own = tuple(embedding)
        else:  # tiles of a table cost the same, so their order is free
            own = tuple(sorted(ranks[first : first + grid.cells].tolist()))
            first += grid.cells
        cuts.append(Cut(rows=grid.rows, columns=grid.columns, ranks=own))
    return cuts
