"""Ratios of paired measurements, with intervals that a short run can give."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import median

__all__ = ["Ratio", "paired_ratio"]

_TAIL = 0.025


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median of the pairs' ratios and its 95 % sign-test interval; no unit."""

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
    """Median of ``above[i] / below[i]``, and the medians that a sign test does not reject.

    The sides of a pair ran one soon after the other, so what slows the machine for a while
    slows both, and the ratio keeps still. The interval ends at two of the ratios. It supposes
    that pairs are independent, nothing of how ratios are spread, and covers at least 95 %; with
    fewer than six pairs it is all there is, from the least ratio to the greatest, and covers less.
    """
    ratios = sorted(over / under for over, under in zip(above, below, strict=True))
    cut = _beyond(len(ratios))
    return Ratio(median(ratios), ratios[cut], ratios[-1 - cut])


def _beyond(pairs: int) -> int:
    """How many of the sorted ratios the interval leaves out at either end.

    As many as ``pairs`` coins show heads with a chance of at most 2.5 %, that many or fewer: so
    seldom do no more than that many ratios lie below the true median.
    """
    left_out, chance = 0, 1 / 2**pairs
    while chance + comb(pairs, left_out + 1) / 2**pairs <= _TAIL:
        left_out += 1
        chance += comb(pairs, left_out) / 2**pairs
    return left_out
