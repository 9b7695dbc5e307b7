"""Bootstrap over requests: what a run might have been with other requests like these.

Tokens of a request share a prompt and a topic, so it is requests that are drawn anew, not tokens.
In each draw every request counts as often as a Poisson variable of mean 1 says, which is drawing
with replacement but for the total, and lets all layers and domains be summed on their own. A
request has the same weight in every layer: what is compared across layers moves together.
``tracer.analysis.request_usage`` has the sums.

Source: Chamandy, Muralidharan, Najmi, Naidu (2012), Estimating uncertainty for massive data
streams, for the Poisson bootstrap; Efron (1979) for the bootstrap itself.
"""

import math

import numpy as np
import numpy.typing as npt

from tracer.errors import InputError

__all__ = ["percentile_interval", "poisson_weights"]

_MOST = 20  # more times than a request counts in a draw: 32 bits end at 12
_CHUNK = 1 << 20  # weights drawn at a time


def poisson_weights(num_requests: int, draws: int, seed: int) -> npt.NDArray[np.uint8]:
    """How often each request counts in each draw: uint8 [requests, draws], Poisson of mean 1.

    By inversion of 32 random bits each, from the raw stream of PCG64, which NumPy keeps as it is
    where it may change its distributions: a seed gives the same weights wherever it is used.
    """
    chances = np.array([math.exp(-1) / math.factorial(count) for count in range(_MOST)])
    ends = np.floor(np.cumsum(chances) * 2**32)
    # A number below the first of these counts 0 times, one below the second once, and so on.
    below = ends[ends < 2**32 - 1].astype(np.uint32)
    stream = np.random.PCG64(seed)
    weights = np.empty(num_requests * draws, dtype=np.uint8)
    for first in range(0, len(weights), _CHUNK):
        part = weights[first : first + _CHUNK]
        raw = stream.random_raw(-(-len(part) // 2)).astype("<u8").view("<u4")
        part[:] = np.searchsorted(below, raw[: len(part)], side="right")
    return weights.reshape(num_requests, draws)


def percentile_interval(
    draws: npt.NDArray[np.float64], level: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(low, high) between which the middle ``level`` of the draws lie, by linear interpolation.

    Args:
        draws: [draws, ...], of any measure; NaN where a draw has none, which is left out.
        level: share of the draws, such as 0.95.

    Returns:
        Two arrays [...] in the unit of ``draws``; NaN where no draw has a value.

    Raises:
        InputError: ``level`` is not between 0 and 1.

    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.
    """
    if not 0 < level < 1:
        raise InputError(f"level {level:g} is not a share of draws", "give over 0, below 1.")
    ordered = np.sort(draws, axis=0)  # NaN last
    last = np.maximum(np.count_nonzero(~np.isnan(draws), axis=0) - 1, 0)

    def at(share: float) -> npt.NDArray[np.float64]:
        place = share * last
        under = np.floor(place).astype(np.int64)
        over = np.minimum(under + 1, last)
        low, high = (np.take_along_axis(ordered, i[None], axis=0)[0] for i in (under, over))
        between: npt.NDArray[np.float64] = low + (high - low) * (place - under)
        return between

    return at((1 - level) / 2), at((1 + level) / 2)
