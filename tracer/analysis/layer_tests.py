"""Probabilities of one statistic in several layers, one-sided or two-sided: numbers only.

Beside ``measures/chance.py``: a claim has a direction, so only draws on its side count against it,
and the recorded value is one of the draws in every mean and spread too, as it is under chance. With
one layer and one side the adjusted probability is the plain one.

Source: Phipson and Smyth (2010), Permutation p-values should never be zero; Westfall and Young
(1993), single-step max-T.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["ALTERNATIVES", "adjusted_probability", "probability"]

Floats = npt.NDArray[np.float64]

ALTERNATIVES = ("greater", "less", "two-sided")
_ALIKE = 1e-9  # relative; closer values differ by the order of summation


def probability(observed: Floats, drawn: Floats, alternative: str) -> Floats:
    """Share of draws at least as far on the side of ``alternative``, the recorded one counted.

    Two-sided, twice the smaller of both shares, at most 1.

    Args:
        observed: [rows].
        drawn: [draws, rows]; NaN where a draw has no value, which is left out.
        alternative: of ``ALTERNATIVES``.

    Returns:
        [rows]; NaN where nothing was observed or drawn.
    """
    count = (~np.isnan(drawn)).sum(axis=0)
    slack = _ALIKE * np.maximum(np.abs(observed), 1)
    with np.errstate(invalid="ignore"):
        above = ((drawn >= observed - slack).sum(axis=0) + 1) / (count + 1)
        below = ((drawn <= observed + slack).sum(axis=0) + 1) / (count + 1)
    sides = {
        "greater": above,
        "less": below,
        "two-sided": np.minimum(1, 2 * np.minimum(above, below)),
    }
    return np.where((count > 0) & ~np.isnan(observed), sides[alternative], np.nan)


def adjusted_probability(observed: Floats, drawn: Floats, alternative: str) -> Floats:
    """``probability`` corrected for looking at all rows at once: the rate of any false one holds.

    The share of draws, the recorded one counted, in which some row lies as far from its mean, in
    its standard deviations, as the observed row. A row that never varies has probability 1.

    Args:
        observed: [rows].
        drawn: [draws, rows], rows of a draw drawn together.
        alternative: of ``ALTERNATIVES``.
    """
    every = np.vstack([observed[None], drawn])
    there = ~np.isnan(every)
    count = np.maximum(there.sum(axis=0), 1)
    center = np.where(there, every, 0).sum(axis=0) / count
    spread = np.sqrt(np.where(there, (every - center) ** 2, 0).sum(axis=0) / count)
    fixed = spread <= _ALIKE * np.maximum(np.abs(center), 1)
    far = (every - center) / np.where(fixed, 1, spread)
    far = {"greater": far, "less": -far, "two-sided": np.abs(far)}[alternative]
    far = np.where(fixed, 0, far)
    most = np.where(there & ~fixed, far, -np.inf).max(axis=1, initial=-np.inf)
    share: Floats = (most[:, None] >= far[0] - _ALIKE).mean(axis=0)
    share = np.where(fixed, 1.0, share)
    return np.where(there[0] & (count > 1), share, np.nan)
