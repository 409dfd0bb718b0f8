"""How often ids recur: the reuse skew of production traces, stretched to a table of any size.

Source: the locality statistics beside the traces of facebookresearch/dlrm_datasets (MIT), which
Meta chose because "their reuse factor distributions reflect those found in production". They count,
for a trace of 887 M (2021) or 1405 M (2022) lookups, how many distinct ids were looked up 1, 2,
3..4, 5..8, ... times and what share of all lookups went to them.

Those are counts of a finite sample, so an id seen once tells little of how popular it is. What is
kept here is the popularity behind the counts: tiers of ids, each `RATES[j]` lookups an id in
expectation, and `LOOKUPS[trace][j]`, the share of all lookups that tier j gets. They solve the
non-negative least squares problem whose Poisson mixture gives back the published histograms (every
bin within 0.0012).
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

# Expected lookups of one id of the tier in the trace, coldest tier first: the geometric middle of
# (2^k, 2^(k+1)], and the open last bin's.
RATES = tuple(float(2.0 ** (k + 0.5)) for k in (*range(-3, 15), 16))

LOOKUPS = {
    "2021": (
        0.0397, 0.0250, 0.0002, 0.0557, 0.0637, 0.1050, 0.1206, 0.0990, 0.0707, 0.0577,
        0.0519, 0.0500, 0.0490, 0.0480, 0.0480, 0.0430, 0.0310, 0.0230, 0.0190,
    ),
    "2022": (
        0.0075, 0.0105, 0.0128, 0.0166, 0.0445, 0.0661, 0.1081, 0.1179, 0.0966, 0.0696,
        0.0590, 0.0540, 0.0400, 0.0720, 0.0640, 0.0470, 0.0210, 0.0170, 0.0760,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Popularity:
    """The tiers of one table, hottest first. Slot s of the table is its s-th most popular id.

    first: int64 (T,)    first slot of the tier
    slots: int64 (T,)    slots in the tier, none empty
    start: float64 (T,)  lookups that go to hotter tiers, as a share of all
    share: float64 (T,)  lookups that go to this tier, as a share of all (sums to 1)
    """

    first: npt.NDArray[np.int64]
    slots: npt.NDArray[np.int64]
    start: npt.NDArray[np.float64]
    share: npt.NDArray[np.float64]

    @property
    def per_slot(self) -> npt.NDArray[np.float64]:
        """Share of all lookups that one slot of each tier gets, float64 (T,)."""
        return self.share / self.slots

    def place(
        self, u: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """Map u in [0, 1) to (tier, position); floor(position) is the slot.

        Uniform u gives slots their popularity, and then the fraction of the position is uniform
        in [0, 1) too, independent of the slot.
        """
        tier = np.searchsorted(self.start, u, side="right") - 1
        width = self.slots / self.share
        position = self.first[tier] + (u - self.start[tier]) * width[tier]
        top = self.first + self.slots
        return tier, np.minimum(position, np.nextafter(top[tier], 0.0))


@cache
def popularity(rows: int, trace: str = "2022") -> Popularity:
    """Stretch a trace to a table of `rows` ids.

    The id at popularity quantile (s + 1/2) / rows gets that quantile's rate. A table too small to
    have a quantile in the hottest tiers has no such id, as it should: in a trace, those are the few
    celebrities of big tables and the values of tiny ones, which get their share by being few.
    """
    if trace not in LOOKUPS:
        raise ValueError(f"reuse: expected one of {', '.join(LOOKUPS)}, got {trace!r}")
    if rows < 1:
        raise ValueError(f"rows of a table: expected at least 1, got {rows}")
    rates = np.array(RATES)[::-1]
    ids = np.array(LOOKUPS[trace])[::-1] / rates
    upto = np.rint(rows * np.cumsum(ids) / ids.sum()).astype(np.int64)
    first = np.concatenate([[0], upto[:-1]])
    kept = upto > first
    first, slots, mass = first[kept], (upto - first)[kept], ((upto - first) * rates)[kept]
    share = mass / mass.sum()
    start = np.concatenate([[0.0], np.cumsum(share)[:-1]])
    return Popularity(first=first, slots=slots, start=start, share=share)
