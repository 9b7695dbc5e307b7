"""Intervals of what is computed from requests, from draws of those requests with replacement.

A number computed from few requests is biased where it is no mean: mutual information, a distance of
two domains, the largest share of an id are too large on average. Requests drawn with replacement
repeat some and miss others, which adds the same bias once more: draws lie about twice as far
from the truth as the value does, and so do their percentiles. ``corrected_interval`` takes it off.

It is no help where a value moves in jumps, because lists, ranks or committees stand between it and
the requests: draws then say how the value moves but not its bias, and percentiles hold.

docs/statistics.md has the coverage of both.
"""

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from tracer.analysis.bootstrap import percentile_interval

__all__ = ["ANYTHING", "corrected_interval", "widening"]

Floats = npt.NDArray[np.float64]

ANYTHING = (-math.inf, math.inf)


def corrected_interval(
    observed: Floats,
    drawn: Floats,
    level: float,
    *,
    widened: npt.ArrayLike = 1.0,
    bounds: tuple[float, float] = ANYTHING,
) -> tuple[Floats, Floats]:
    """(low, high) of values, the bias of the draws taken off twice.

    With m the mean of the draws and b = m - value, the estimate of the bias, the ends are
    value - b + widened (q - m), where q are the percentiles of the draws: those move by -2 b, and
    as far from the middle as few requests ask. Ends outside the bounds are put on them. The value
    itself always lies in its interval, even where more bias is found than the interval is wide.
    Where all draws are the value, so are both ends. Where one is infinite, percentiles are told.

    Args:
        observed: [rows].
        drawn: [draws, rows]; NaN where a draw has no value, which is left out.
        level: share of the draws, such as 0.95.
        widened: [rows] or one for all, from ``widening``.
        bounds: least and largest number that the value can be.

    Returns:
        Two arrays [rows]; NaN where nothing was observed or drawn, or ``widened`` is not known.

    Raises:
        InputError: ``level`` is not between 0 and 1.

    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 10, for the
    estimate of bias; Hesterberg (2015), What Teachers Should Know About the Bootstrap, for the
    widening.
    """
    low, high = percentile_interval(drawn, level)
    there = ~np.isnan(drawn)
    count = there.sum(axis=0)
    total = np.where(there, drawn, 0).sum(axis=0)
    mean = np.divide(total, count, out=np.full(len(observed), np.nan), where=count > 0)
    known = (count > 0) & ~np.isnan(observed) & ~np.isnan(np.asarray(widened, dtype=np.float64))
    plain = np.isinf(mean) | np.isinf(observed)
    with np.errstate(invalid="ignore"):
        ends = [
            np.where(plain, end, np.clip(2 * observed - mean + widened * (end - mean), *bounds))
            for end in (low, high)
        ]
    return (
        np.where(known, np.fmin(ends[0], observed), np.nan),
        np.where(known, np.fmax(ends[1], observed), np.nan),
    )


def widening(level: float, num_requests: npt.ArrayLike, num_domains: npt.ArrayLike) -> Floats:
    """By how much an interval of few requests is too narrow, [rows]; NaN where none can be given.

    Draws with replacement spread by (n - 1) / n too little in variance, n the requests of a domain,
    and their percentiles are those of a spread that is known, not estimated: the factor is
    sqrt(n / f) t_f / z, with n all requests that a row is made of, f as many less one for each of
    its domains, and t_f, z the quantiles of Student's and of the normal distribution.

    Args:
        level: of the interval.
        num_requests: [rows].
        num_domains: [rows].
    """
    count = np.asarray(num_requests, dtype=np.float64)
    freedom = count - np.asarray(num_domains, dtype=np.float64)
    found = np.full(count.shape, np.nan)
    for one in np.unique(freedom[freedom > 0]):
        here = freedom == one
        found[here] = np.sqrt(count[here] / one) * _student_over_normal(level, float(one))
    return found


def _student_over_normal(level: float, freedom: float) -> float:
    """T quantile over the normal one for the middle ``level``; exact for 1 and 2, else to 1 %.

    Source: Abramowitz and Stegun (1964), 26.7.5.
    """
    share = (1 + level) / 2
    z = NormalDist().inv_cdf(share)
    exact = {
        1: math.tan(math.pi * (share - 0.5)),
        2: (2 * share - 1) / math.sqrt(2 * share * (1 - share)),
    }
    if freedom in exact:
        return exact[int(freedom)] / z
    terms = (
        (z**2 + 1) / 4,
        (5 * z**4 + 16 * z**2 + 3) / 96,
        (3 * z**6 + 19 * z**4 + 17 * z**2 - 15) / 384,
        (79 * z**8 + 776 * z**6 + 1482 * z**4 - 1920 * z**2 - 945) / 92160,
    )
    return 1 + sum(term / freedom**power for power, term in enumerate(terms, start=1))
