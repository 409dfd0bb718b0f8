"""How rows begin.

A row is born from its key: the first value of an element depends on (seed, table, id, column) and
nothing else, so it is the same on any placement and in any order of arrival. The generator is
splitmix64 (Steele, Lea and Flood, 2014) used as a counter; native/init.h has the arithmetic.
"""

import math
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Constant:
    """Every element is `value`; `Constant()` is all zeros."""

    value: float = 0.0

    kind: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"Constant: value must be finite, got {self.value}")

    @property
    def scale(self) -> float:
        """The number that the native core takes."""
        return self.value


@dataclass(frozen=True, slots=True)
class Uniform:
    """Uniform in (-scale, scale)."""

    scale: float = 0.01

    kind: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"Uniform: scale must be finite and above 0, got {self.scale}")


@dataclass(frozen=True, slots=True)
class Normal:
    """Normal with mean 0 and standard deviation `std`; no value exceeds 5.3 std."""

    std: float = 0.01

    kind: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if not (math.isfinite(self.std) and self.std > 0):
            raise ValueError(f"Normal: std must be finite and above 0, got {self.std}")

    @property
    def scale(self) -> float:
        """The number that the native core takes."""
        return self.std


Init = Constant | Uniform | Normal

init_names: dict[str, type[Init]] = {"constant": Constant, "uniform": Uniform, "normal": Normal}
"""Names for job files."""
