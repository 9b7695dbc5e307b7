"""Chance levels, probabilities and intervals from draws of a measure: numbers only."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from tracer.analysis.bootstrap import percentile_interval

__all__ = ["adjusted_probability", "aligned", "chance_columns", "interval_columns", "probability"]

Floats = npt.NDArray[np.float64]


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
    with np.errstate(invalid="ignore"):
        above = (drawn >= observed).sum(axis=0)
        below = (drawn <= observed).sum(axis=0)
    share: Floats = np.minimum(1, 2 * (np.minimum(above, below) + 1) / (count + 1))
    return np.where((count > 0) & ~np.isnan(observed), share, np.nan)


def adjusted_probability(observed: Floats, drawn: Floats) -> Floats:
    """``probability`` corrected for looking at all rows at once, [rows].

    The share of draws in which any row lies as far from its own mean, in its own standard
    deviations, as the observed row does: the rate of any false finding among all rows is held.
    A row that does not vary under chance is left out of the maximum; if the observed value
    differs from it, its probability is 1 over draws + 1.

    Source: Westfall and Young (1993), single-step max-T.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        center = _mean(drawn)
        spread = np.sqrt(_mean((drawn - center) ** 2))
        fixed = spread <= 1e-12 * np.maximum(np.abs(center), 1)
        scale = np.where(fixed, np.nan, spread)
        far = np.abs(drawn - center) / scale
        seen = np.abs(observed - center) / scale
    most = np.nanmax(np.where(np.isnan(far), -np.inf, far), axis=1, initial=-np.inf)
    share: Floats = ((most[:, None] >= seen).sum(axis=0) + 1) / (len(drawn) + 1)
    same = np.abs(observed - center) <= 1e-9 * np.maximum(np.abs(center), 1)
    share = np.where(fixed, np.where(same, 1.0, 1 / (len(drawn) + 1)), share)
    return np.where(np.isnan(observed) | np.isnan(center), np.nan, share)


def chance_columns(name: str, observed: Floats, drawn: Floats, level: float) -> dict[str, Floats]:
    """Columns of a value's chance: mean, band of the middle ``level``, and two probabilities."""
    low, high = percentile_interval(drawn, level)
    with np.errstate(invalid="ignore"):
        return {
            f"{name}_chance": _mean(drawn),
            f"{name}_chance_low": low,
            f"{name}_chance_high": high,
            f"{name}_p": probability(observed, drawn),
            f"{name}_p_adjusted": adjusted_probability(observed, drawn),
        }


def interval_columns(name: str, drawn: Floats, level: float) -> dict[str, Floats]:
    """Columns of a value's interval: percentiles of what requests drawn anew give."""
    low, high = percentile_interval(drawn, level)
    return {f"{name}_low": low, f"{name}_high": high}


def _mean(drawn: Floats) -> Floats:
    count = (~np.isnan(drawn)).sum(axis=0)
    total: Floats = np.nansum(drawn, axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
