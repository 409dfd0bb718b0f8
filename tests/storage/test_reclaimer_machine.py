"""Any history of rows leaves living and dead those whom a model of every row does."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from reclaim_model import Population, Row, Rule

from fourfold.storage._native import Clock, Decay, Reclaimer, RowClass

RANKINGS = ["score", "recency", "importance"]
RULES = [Rule(0, True), Rule(6, True), Rule(9, False), Rule(0, False)]
scores = st.one_of(st.integers(0, 700), st.integers(0, 65535))


class AgainstModel(RuleBasedStateMachine):
    """Any order of births, touches, deaths and ticks."""

    def __init__(self, ranking: str) -> None:
        super().__init__()
        self.ranking = ranking
        self.names = 0

    @initialize(beta=st.sampled_from([0.0, 0.1, 0.5]), interval=st.integers(1, 5))
    def build(self, beta: float, interval: int) -> None:
        self.model = Population(self.ranking, beta, interval, RULES)
        self.clock = Clock(interval)
        classes = [RowClass(time_to_live=r.time_to_live, by_score=r.by_score) for r in RULES]
        ranking = RANKINGS.index(self.ranking)
        self.native = Reclaimer(ranking, Decay(beta), self.clock, classes)

    def enter(self, name: int, row: Row) -> None:
        self.model.live[name] = row
        self.native.add(row.row_class, row.time, row.score, row.bytes)

    def leave(self, name: int) -> Row:
        """What lies there goes, dead or not."""
        row = self.model.live.pop(name, None) or self.model.dead.pop(name)
        self.native.remove(row.row_class, row.time, row.score, row.bytes)
        return row

    @rule(row_class=st.integers(0, 3), rows=st.lists(scores, min_size=1, max_size=6))
    def bear(self, row_class: int, rows: list[int]) -> None:
        for score in rows:
            self.enter(self.names, Row(row_class, self.model.now, score, 100 + 4 * row_class))
            self.names += 1

    @rule(data=st.data(), score=scores)
    def touch(self, data: st.DataObject, score: int) -> None:
        names = [*self.model.live, *self.model.dead]
        if names:
            name = data.draw(st.sampled_from(names))
            self.enter(name, replace(self.leave(name), time=self.model.now, score=score))

    @rule(data=st.data())
    def erase(self, data: st.DataObject) -> None:
        if names := [*self.model.live, *self.model.dead]:
            self.leave(data.draw(st.sampled_from(names)))

    @rule(batches=st.integers(1, 4), ticks=st.integers(0, 2))
    def pass_time(self, batches: int, ticks: int) -> None:
        for _ in range(batches):
            self.clock.advance_batch()
        self.model.batch += batches
        for _ in range(ticks):
            assert self.native.tick() == self.model.tick() == 0

    @precondition(lambda self: self.model.live)
    @rule(share=st.sampled_from([0.0, 0.1, 0.5, 0.9, 2.0]))
    def condemn(self, share: float) -> None:
        wanted = int(share * self.model.live_bytes())
        assert self.native.condemn(wanted) == self.model.condemn(wanted)

    @rule()
    def sweep(self) -> None:
        self.native.sweep_began()
        for name in list(self.model.dead):
            self.leave(name)
        self.native.sweep_ended()

    @invariant()
    def agrees(self) -> None:
        assert self.native.consistent()
        assert self.native.bytes == self.model.live_bytes()
        for c in range(4):
            rows = [row for row in self.model.live.values() if row.row_class == c]
            assert self.native.rows_of(c) == len(rows)
            assert self.native.bytes_of(c) == sum(row.bytes for row in rows)
        for rows_there, dead in ((self.model.live, False), (self.model.dead, True)):
            for row in rows_there.values():
                assert self.native.dead(row.row_class, row.time, row.score) == dead
                assert self.native.expired(row.row_class, row.time) == self.model.expired(row)


@pytest.mark.parametrize("ranking", RANKINGS)
def test_any_history_agrees_with_the_model(ranking: str) -> None:
    run_state_machine_as_test(
        lambda: AgainstModel(ranking),
        settings=settings(max_examples=40, stateful_step_count=25, deadline=None),
    )
