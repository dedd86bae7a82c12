"""Robust statistics: a few outliers in the history do not change what is typical."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

__all__ = ["Typical", "is_common", "quantile"]

MAD_TO_SIGMA = 1.4826
"""Factor between the median absolute deviation and the standard deviation of a normal distribution."""

RARE = 0.1
"""Share of the history from which on a value is not unusual."""


@dataclass(frozen=True, slots=True)
class Typical:
    """What is typical for some values.

    Attributes:
        center: the median.
        spread: the median absolute deviation, as a standard deviation.
        count: number of the values.
    """

    center: float
    spread: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Typical:
        """Return what is typical for one or more values.

        >>> Typical.of([10, 11, 9, 10, 500]).center
        10
        """
        center = median(values)
        spread = MAD_TO_SIGMA * median(abs(value - center) for value in values)
        return cls(center, spread, len(values))


def quantile(values: Sequence[float], share: float) -> float:
    """Return the least value that is not exceeded by a share of the values.

    >>> quantile([1, 1, 1, 3], 0.9), quantile([5, 1], 0.5)
    (3, 1)
    """
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def is_common(matches: int, count: int) -> bool:
    """Return whether a part of the history is so large that a value like it is not unusual.

    >>> is_common(0, 50), is_common(7, 50)
    (False, True)
    """
    return matches > 0 and matches >= RARE * count
