"""Keys: table and id in one 64-bit word, without collisions.

Size-aware coding (Fleche, EuroSys 2022): a table whose ids need b bits owns an aligned range of
2**b keys, and the 64 - b bits above are its code, so big tables have short codes. Static tables
take the bits of their largest id; dynamic ones share what is left in equal ranges. The ranges are
laid out from the largest down, which keeps each one aligned and the code prefix-free (Kraft).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

ID_BITS = 63
"""Ids are int64 values >= 0."""

MIN_DYNAMIC_BITS = 52
"""The least that a dynamic table is left with."""


@dataclass(frozen=True, slots=True)
class KeyCode:
    """The key range of every table: table i owns keys [base[i], base[i] + 2**bits[i])."""

    base: tuple[int, ...]
    bits: tuple[int, ...]

    @classmethod
    def of(cls, rows: Sequence[int | None]) -> "KeyCode":
        """Assign ranges to tables with `rows` ids each, None for dynamic ones.

        Raises ValueError when the tables do not fit 64 bits with 52 for every dynamic one.
        """
        static = {i: max(n - 1, 0).bit_length() for i, n in enumerate(rows) if n is not None}
        dynamic = [i for i, n in enumerate(rows) if n is None]
        left = 2**64 - sum(2**b for b in static.values())
        share = left // len(dynamic) if dynamic else left
        dynamic_bits = min(ID_BITS, share.bit_length() - 1) if share > 0 else -1
        if left < 0 or (dynamic and dynamic_bits < MIN_DYNAMIC_BITS):
            raise ValueError(
                f"{len(static)} static tables with {sum(n or 0 for n in rows)} rows and "
                f"{len(dynamic)} dynamic tables do not fit 64-bit keys: static ranges take "
                f"{2**64 - left} keys and each dynamic table needs 2**{MIN_DYNAMIC_BITS}; "
                "use fewer dynamic tables"
            )
        bits = [static.get(i, dynamic_bits) for i in range(len(rows))]
        base = [0] * len(rows)
        end = 0
        for i in sorted(range(len(rows)), key=lambda i: -bits[i]):
            base[i] = end
            end += 2 ** bits[i]
        return cls(tuple(base), tuple(bits))

    def key(self, table: int, id: int) -> int:
        """Key of an id; ValueError when the id does not fit the table's range."""
        if not 0 <= id < 2 ** self.bits[table]:
            raise ValueError(
                f"table {table}: id {id} is outside [0, 2**{self.bits[table]}), what its keys "
                "leave for ids; use smaller ids or set hash_ids"
            )
        return self.base[table] | id

    def table_and_id(self, key: int) -> tuple[int, int]:
        """Recover what a key stands for; ValueError for a key in no range."""
        for table, (base, bits) in enumerate(zip(self.base, self.bits, strict=True)):
            if (key ^ base) >> bits == 0:
                return table, key ^ base
        raise ValueError(f"key {key:#x} belongs to no table")


def collision_odds(ids: int, bits: int) -> float:
    """Probability that at least two of `ids` distinct ids share a hash of `bits` bits."""
    return -math.expm1(-ids * (ids - 1) / 2 / 2.0**bits)


def collision_text(ids: int, bits: int) -> str:
    """Say what hashing `ids` distinct ids to `bits` bits costs."""
    expected = ids * (ids - 1) / 2 / 2.0**bits
    return (
        f"{ids:,} distinct ids hashed to {bits} bits: {expected:.3g} pairs share a row on average "
        f"(chance of any: {100 * collision_odds(ids, bits):.3g}%)"
    )
