"""How many requests each row of a measure is made of, and so how wide its intervals must be."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from tracer.analysis.intervals import widening

__all__ = ["row_widening"]

# Columns that name the domains that a row is of; a row without one is of all.
_DOMAINS = ("domain", "other_domain", "second_domain", "domain_a", "domain_b")


def row_widening(
    rows: pl.DataFrame, key: tuple[str, ...], requests: pl.DataFrame, level: float
) -> npt.NDArray[np.float64]:
    """``widening`` of each row, [rows]; NaN where each of its domains has one request.

    Args:
        rows: of the measure.
        key: its columns that tell rows apart.
        requests: `scoped_requests`, as recorded.
        level: of the intervals.
    """
    sizes: Mapping[str, int] = dict(requests.group_by("domain").len().iter_rows())
    named = [column for column in _DOMAINS if column in key]
    count = np.full(rows.height, requests.height)
    domains = np.full(rows.height, len(sizes))
    for place, names in enumerate(rows.select(named).iter_rows()):
        if known := sizes.keys() & set(names):
            count[place] = sum(sizes[name] for name in known)
            domains[place] = len(known)
    return widening(level, count, domains)
