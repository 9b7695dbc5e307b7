"""Ratios of paired measurements, with intervals that a short run can give."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Ratio", "paired_ratio"]

_RESAMPLES = 10_000
_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median of the pairs' ratios and its 95 % bootstrap interval; no unit."""

    median: float
    low: float
    high: float

    @property
    def interval(self) -> list[float]:
        """[low, high], rounded as ``rounded``."""
        return [round(self.low, 4), round(self.high, 4)]

    @property
    def rounded(self) -> float:
        """The median to four digits; pairs do not tell more."""
        return round(self.median, 4)


def paired_ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Median of ``above[i] / below[i]``; percentile bootstrap over pairs, seeded.

    The pairs of a round ran one soon after the other, so what slows the machine for a while
    slows both, and the ratio keeps still.
    """
    ratios = np.asarray(above, dtype=np.float64) / np.asarray(below, dtype=np.float64)
    picks = np.random.default_rng(0).integers(0, len(ratios), (_RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[picks], axis=1), _PERCENTILES)
    return Ratio(float(np.median(ratios)), float(low), float(high))
