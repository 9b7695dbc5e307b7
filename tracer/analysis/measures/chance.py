"""Chance levels, probabilities and intervals from draws of a measure: numbers only."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from tracer.analysis.bootstrap import percentile_interval
from tracer.analysis.intervals import corrected_interval

__all__ = ["adjusted_probability", "aligned", "chance_columns", "interval_columns", "probability"]

Floats = npt.NDArray[np.float64]
_ROUNDING = 1e-12  # of sums


def aligned(observed: pl.DataFrame, key: Sequence[str], draw: pl.DataFrame, value: str) -> Floats:
    """Values of a draw in the rows of ``observed``, float64 [rows]; NaN where it has none."""
    if not key:
        return draw[value].cast(pl.Float64).to_numpy()
    found = observed.select(key).join(
        draw.select(*key, value), on=list(key), how="left", nulls_equal=True, maintain_order="left"
    )
    return found[value].cast(pl.Float64).fill_null(np.nan).to_numpy()


def probability(observed: Floats, drawn: Floats) -> Floats:
    """Two-sided probability of values as far from chance, [rows]; NaN where none was drawn.

    Twice the smaller share of draws that are at least as large, or as small, the observed value
    counted among them; at most 1.

    Args:
        observed: [rows].
        drawn: [draws, rows], NaN where a draw has no such row.

    Source: Phipson and Smyth (2010), Permutation p-values should never be zero.
    """
    there = ~np.isnan(drawn)
    count = there.sum(axis=0)
    # A draw may repeat what was observed, but for the order that a sum was added in.
    equal = _ROUNDING * np.maximum(np.abs(observed), 1)
    with np.errstate(invalid="ignore"):
        above = (drawn >= observed - equal).sum(axis=0)
        below = (drawn <= observed + equal).sum(axis=0)
    share: Floats = np.minimum(1, 2 * (np.minimum(above, below) + 1) / (count + 1))
    return np.where((count > 0) & ~np.isnan(observed), share, np.nan)


def adjusted_probability(observed: Floats, drawn: Floats) -> Floats:
    """``probability`` corrected for looking at all rows at once, [rows].

    The share of draws in which any row lies as far from the row's mean, in the row's standard
    deviations, as the observed one does: the rate of any false finding among all rows is held.
    Mean and deviation are of the draws and the observed value together. Without it 99 draws would
    find 20 rows that are chance alone in 6.8 %, not 5 %, of all cases. A row that never varies is
    left out.

    Args:
        observed: [rows].
        drawn: [draws, rows], NaN where a draw has no such row.

    Source: Westfall and Young (1993), Resampling-based multiple testing, single-step max-T.
    """
    every = np.vstack([observed, drawn])
    there = ~np.isnan(every)
    count = np.maximum(there.sum(axis=0), 1)
    center = np.nansum(every, axis=0) / count
    spread = np.sqrt(np.nansum((every - center) ** 2, axis=0) / count)
    varies = spread > _ROUNDING * np.maximum(np.abs(center), 1)
    scale = np.where(varies, spread, 1)
    far = np.where(there & varies, np.abs(every - center) / scale, 0)
    most = far.max(axis=1, initial=0)
    share: Floats = (most[:, None] >= far[0] - _ROUNDING).mean(axis=0)
    return np.where(there[0] & there[1:].any(axis=0), share, np.nan)


def chance_columns(name: str, observed: Floats, drawn: Floats, level: float) -> dict[str, Floats]:
    """Columns of a value's chance: mean, band of the middle ``level``, and two probabilities.

    A value that every draw repeats has no probability: its null leaves it as it is, so that
    nothing is tested.
    """
    low, high = percentile_interval(drawn, level)
    with np.errstate(invalid="ignore"):
        equal = np.abs(drawn - observed) <= _ROUNDING * np.maximum(np.abs(observed), 1)
        tested = ~(equal | np.isnan(drawn)).all(axis=0)
        return {
            f"{name}_chance": _mean(drawn),
            f"{name}_chance_low": low,
            f"{name}_chance_high": high,
            f"{name}_p": np.where(tested, probability(observed, drawn), np.nan),
            f"{name}_p_adjusted": np.where(tested, adjusted_probability(observed, drawn), np.nan),
        }


def interval_columns(
    name: str,
    observed: Floats,
    drawn: Floats,
    level: float,
    *,
    widened: Floats,
    bounds: tuple[float, float] | None,
) -> dict[str, Floats]:
    """Columns of a value's interval, from what requests drawn anew give.

    Args:
        name: of the value.
        observed: [rows].
        drawn: [draws, rows].
        level: of the interval.
        widened: [rows], from ``row_widening``.
        bounds: of the value, where draws keep to them; None for percentiles as they are.
    """
    if bounds is None:
        low, high = percentile_interval(drawn, level)
    else:
        every = np.append(drawn, observed)
        kept = (
            float(np.nanmin(every, initial=bounds[0])),
            float(np.nanmax(every, initial=bounds[1])),
        )
        low, high = corrected_interval(observed, drawn, level, widened=widened, bounds=kept)
    return {f"{name}_low": low, f"{name}_high": high}


def _mean(drawn: Floats) -> Floats:
    count = (~np.isnan(drawn)).sum(axis=0)
    total: Floats = np.nansum(drawn, axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
