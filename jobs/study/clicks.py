"""Click logs in which ids come and go: what the studies of memory train on.

An id of an open field is a shot (Traverso et al., "Temporal locality in today's content caching",
CCR 2013): it is born at a moment of its own, gets a number of lookups with a power tail, at a rate
that rises, passes its height and fades over its life, and is never seen again. So new ids come for
as long as the log goes on, most of them appear once, and which ids matter keeps changing. Criteo's
Kaggle log is the model, with 0.74 distinct ids per line, few of them seen ten times. Three million
impressions have 0.73: 61% appear once, 7% ten times or more.

    user        returns a few times; life 0.2 of the log
    item        many short-lived ones, a few seen by everybody; life 0.06
    author      of the item: an item is a lookup of its author's, whose life is 0.4
    category    of the author: closed list, Zipf
    page        where it was shown; life 0.15
    taste       user x group of categories, the cross feature: most of its ids appear once
    city        of the user: closed list, Zipf
    device      of the user: closed list
    hour        closed list

The true log odds are a sum of one effect per id, normal with the field's standard deviation and
independent of how often the id is seen; of a product of city's and category's vectors; and of the
dense features. Nobody can know the effect of an id seen once, so the best figures, which come from
the true probabilities, are out of every model's reach; they are a ceiling and not a target.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, ndtri

from fourfold.runtime.data.batch import Float32, Int64
from fourfold.runtime.data.scatter import bits64, mix64

CLICK_RATE = 0.25
DENSE_FIELDS = 4
DENSE_EFFECT = 0.4
PAIR_EFFECT = 0.3

EFFECTS = {
    "user": 0.5,
    "item": 0.6,
    "author": 0.4,
    "category": 0.3,
    "page": 0.4,
    "taste": 0.4,
    "city": 0.2,
    "device": 0.15,
    "hour": 0.15,
}
"""The sparse fields, and the standard deviation of their ids' effects on the log odds."""

CLOSED = {"category": 100, "city": 2000, "device": 20, "hour": 24}
"""Fields whose values lie in [0, n) and never change."""

_GROUPS = 10
"""Of categories, in the cross feature."""

_LIFE_SPREAD = 0.8
_BEFORE = 3.0
"""Shots begin so many lives before the log does, so that it starts in full swing."""
_SPARE = 1.3
_NORMAL = ndtri((np.arange(2**16) + 0.5) / 2**16).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Shots:
    """The law of an open field's ids."""

    mean: float
    """Expected lookups of an id over its life."""
    tail: float
    """Power of the tail of the number of lookups."""
    most: float
    """Largest expected share of all lookups that one id has."""
    life: float
    """Median life as a share of the log."""


USERS = Shots(mean=4.0, tail=0.8, most=1e-4, life=0.2)
ITEMS = Shots(mean=8.0, tail=0.8, most=2e-3, life=0.06)
AUTHORS = Shots(mean=8.0, tail=0.8, most=2e-3, life=0.4)
PAGES = Shots(mean=6.0, tail=0.8, most=2e-3, life=0.15)


@dataclass(frozen=True, slots=True)
class Clicks:
    """A log of N impressions in time order; F sparse fields.

    ids: int64 (F, N); dense: float32 (N, D); label: float32 (N,); logit: float32 (N,), the truth
    """

    ids: Int64
    dense: Float32
    label: Float32
    logit: Float32

    @property
    def size(self) -> int:
        """Number of impressions."""
        return len(self.label)


def generate_clicks(samples: int, seed: int) -> Clicks:
    """Make up a log; the same arguments give the same bits."""
    rng = np.random.Generator(np.random.SFC64([seed, samples]))
    ids = _sparse_fields(samples, seed, rng)
    dense = rng.standard_normal((samples, DENSE_FIELDS), np.float32)
    logit = np.zeros(samples, np.float32)
    vectors = {}
    for field, (name, effect) in enumerate(EFFECTS.items()):
        normal = id_normals(ids[field], seed, field)
        logit += np.float32(effect) * normal[:, 0]
        vectors[name] = normal[:, 1:]
    pairs = np.einsum("nk,nk->n", vectors["city"], vectors["category"])
    logit += np.float32(PAIR_EFFECT / 3**0.5) * pairs
    logit += np.float32(DENSE_EFFECT / DENSE_FIELDS**0.5) * dense.sum(axis=1)
    logit += np.float32(solve_bias(logit, CLICK_RATE))
    label = (rng.random(samples) < expit(logit.astype(np.float64))).astype(np.float32)
    return Clicks(ids, dense, label, logit)


def _sparse_fields(samples: int, seed: int, rng: np.random.Generator) -> Int64:
    """Draw who sees what, int64 (F, N), in the order of `EFFECTS`."""
    user, page = draw_shots(rng, samples, USERS), draw_shots(rng, samples, PAGES)
    item = draw_shots(rng, samples, ITEMS)
    # Items are numbered by birth, so authors' lookups in time order are the items they make.
    author = draw_shots(rng, int(item.max()) + 1, AUTHORS)[item]
    hours = CLOSED["hour"]
    category = _closed(author, CLOSED["category"], seed + 1)
    fields = {
        "user": user,
        "item": item,
        "author": author,
        "category": category,
        "page": page,
        "taste": user * _GROUPS + category % _GROUPS,
        "city": _closed(user, CLOSED["city"], seed + 2),
        "device": _closed(user, CLOSED["device"], seed + 3),
        "hour": np.arange(samples) * (7 * hours) // samples % hours,
    }
    return np.stack([fields[name] for name in EFFECTS])


def draw_shots(rng: np.random.Generator, lookups: int, law: Shots) -> Int64:
    """Draw the ids of `lookups` lookups in time order, int64; ids are numbered by birth."""
    count = int(np.ceil(_SPARE * lookups / law.mean * (1 + _BEFORE * law.life))) + 16
    birth = np.sort(rng.uniform(-_BEFORE * law.life, 1.0, count))
    volume = rng.random(count) ** (-1 / law.tail)
    for _ in range(5):  # the cap lowers the mean, so both are met step by step
        volume = np.minimum(volume * (law.mean / volume.mean()), max(law.most * lookups, law.mean))
    owner = np.repeat(np.arange(count), rng.poisson(volume))
    life = law.life * rng.lognormal(0.0, _LIFE_SPREAD, count)
    time = birth[owner] + life[owner] * rng.standard_gamma(2.0, len(owner)) / 2
    inside = np.flatnonzero((time >= 0) & (time < 1))
    kept = rng.choice(inside, lookups, replace=len(inside) < lookups)
    seen: Int64 = owner[kept[np.argsort(time[kept])]]
    return seen


def id_normals(ids: Int64, seed: int, field: int) -> npt.NDArray[np.float32]:
    """Four standard normal numbers of each id, float32 (n, 4): effect and vector."""
    bits = bits64(ids.astype(np.uint64), mix64(seed) ^ (field + 1))
    normal: npt.NDArray[np.float32] = _NORMAL[bits.view(np.uint16).reshape(-1, 4)]
    return normal


def solve_bias(logit: Float32, rate: float) -> float:
    """Find what must be added to log odds for a mean probability of `rate`."""
    some = logit[:: max(1, len(logit) // 100_000)].astype(np.float64)
    low, high = -30.0, 30.0
    while high - low > 1e-9:
        bias = (low + high) / 2
        low, high = (bias, high) if expit(some + bias).mean() < rate else (low, bias)
    return low


def _closed(owner: Int64, count: int, key: int) -> Int64:
    """Give each owner one of `count` values for good, by a Zipf law, int64 of the same shape."""
    weight = 1.0 / np.arange(1, count + 1)
    upto = np.cumsum(weight / weight.sum())
    u = (bits64(owner.astype(np.uint64), key) >> np.uint64(11)) * 2.0**-53
    values: Int64 = np.minimum(np.searchsorted(upto, u, side="right"), count - 1)
    return values
