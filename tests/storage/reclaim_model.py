"""Plain models of what reclamation and admission promise, one row at a time."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

LIFETIME = 65536 - 2 * 4096 - 16
"""Ticks after which an unseen row dies."""


def value_of(score: int) -> int:
    """Sixty-fourths in a score."""
    exponent, mantissa = divmod(score, 2048)
    return mantissa if exponent == 0 else (2048 + mantissa) * 2 ** (exponent - 1)


def bin_of(value: int) -> int:
    """Two bins per power of two from 16 sixty-fourths on, and one below."""
    if value < 16:
        return 0
    octave = int(math.log2(value))
    return min(63, 1 + 2 * (octave - 4) + (value >= 1.5 * 2**octave))


def bin_floor(index: int) -> int:
    """Lowest value in a bin."""
    octave, upper = divmod(index - 1, 2)
    return 0 if index == 0 else (2 + upper) * 2 ** (3 + octave)


def decayed(value: int, intervals: int, beta: float) -> int:
    """A value after some intervals, as if each power of the share had 32 bits."""
    share = 1 - beta
    for k in range(17):
        if intervals >> k & 1 and beta > 0:
            value = value * min(2**32 - 1, int(share * 2**32 + 0.5)) >> 32
        share *= share
    return 0 if intervals >= 2**17 and beta > 0 else value


def kraken_scores(credits: Iterable[Fraction], beta: Fraction) -> list[Fraction]:
    """Score of a row after each interval, from what it earned in it."""
    score, scores = Fraction(0), []
    for credit in credits:
        score = (1 - beta) * score + beta * credit
        scores.append(score)
    return scores


@dataclass(frozen=True)
class Row:
    """What the reclaimer is told of a row; times are ticks since the start."""

    row_class: int
    time: int
    score: int
    bytes: int


@dataclass
class Rule:
    """A class of rows."""

    time_to_live: int
    by_score: bool

    @property
    def protected(self) -> bool:
        return not self.by_score and self.time_to_live == 0


@dataclass
class Population:
    """Rows of a rank, which live or are dead and lie there."""

    ranking: str
    beta: float
    interval: int
    rules: list[Rule]
    began: list[int] = field(default_factory=lambda: [0])  # batch of each tick
    batch: int = 0
    live: dict[int, Row] = field(default_factory=dict)
    dead: dict[int, Row] = field(default_factory=dict)

    @property
    def now(self) -> int:
        return len(self.began) - 1

    def live_bytes(self) -> int:
        return sum(row.bytes for row in self.live.values())

    def kill(self, names: Iterable[int]) -> int:
        gone = 0
        for name in list(names):
            row = self.live.pop(name)
            self.dead[name] = row
            gone += row.bytes
        return gone

    def expired(self, row: Row) -> bool:
        to_live = self.rules[row.row_class].time_to_live
        if to_live == 0 or row.time == self.now:
            return False
        return self.batch - self.began[row.time + 1] > to_live

    def rank(self, row: Row) -> Fraction:
        if self.ranking == "recency":
            return Fraction(0)
        gone = self.began[self.now] // self.interval - self.began[row.time] // self.interval
        value = decayed(bin_floor(bin_of(value_of(row.score))), gone, self.beta)
        return Fraction(value)

    def units(self) -> dict[int, Fraction]:
        """By class: what a rank is measured in."""
        units: dict[int, Fraction] = {}
        for c in range(len(self.rules)):
            ranks = sorted(self.rank(row) for row in self.live.values() if row.row_class == c)
            units[c] = Fraction(1)
            if self.ranking == "importance" and ranks:
                units[c] = max(Fraction(1), ranks[math.ceil(Fraction(19, 20) * len(ranks)) - 1])
        return units

    def condemn(self, wanted: int) -> int:
        gone = self.kill([name for name, row in self.live.items() if self.expired(row)])
        units = self.units()

        def order(row: Row) -> tuple[Fraction, int, int, int]:
            rank = self.rank(row) / units[row.row_class]
            return rank, row.time, bin_of(value_of(row.score)), row.row_class

        cells: dict[tuple[Fraction, int, int, int], list[int]] = {}
        for name, row in self.live.items():
            if self.rules[row.row_class].by_score:
                cells.setdefault(order(row), []).append(name)
        for cell in sorted(cells):
            if gone >= wanted:
                break
            gone += self.kill(cells[cell])
        return gone + self.tick()

    def tick(self) -> int:
        self.began.append(self.batch)
        return self.kill(
            [
                name
                for name, row in self.live.items()
                if self.now - row.time >= LIFETIME and not self.rules[row.row_class].protected
            ]
        )
