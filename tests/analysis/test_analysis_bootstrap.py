"""Weights of requests against Poisson's law, and intervals against quantiles."""

import math

import numpy as np
import pytest

from tracer.analysis.bootstrap import percentile_interval, poisson_weights
from tracer.errors import InputError


def test_weights_are_poisson_numbers():
    """Of 200,000: shares exp(-1) / n! within four standard errors, neighbours uncorrelated."""
    weights = poisson_weights(2000, 100, 11)
    assert (weights.shape, weights.dtype) == ((2000, 100), np.uint8)
    for count in range(6):
        chance = math.exp(-1) / math.factorial(count)
        error = math.sqrt(chance * (1 - chance) / weights.size)
        assert abs((weights == count).mean() - chance) < 4 * error
    assert weights.mean() == pytest.approx(1, abs=0.01)
    assert weights.var() == pytest.approx(1, abs=0.02)
    rows, columns = weights - weights.mean(), weights.astype(float) - 1
    assert abs((rows[:-1] * rows[1:]).mean()) < 0.01
    assert abs((columns[:, :-1] * columns[:, 1:]).mean()) < 0.01


FIRST = [[3, 1, 1, 2, 1, 2], [2, 0, 0, 0, 0, 2], [2, 0, 1, 2, 0, 2], [0, 1, 2, 0, 0, 0]]


def test_weights_stay_what_they_were():
    """Of a seed, on any machine and any NumPy; drawn in parts, they are the same."""
    assert poisson_weights(4, 6, 7).tolist() == FIRST
    assert poisson_weights(1, 5, 7).tolist() == [FIRST[0][:5]]
    assert poisson_weights(0, 5, 7).shape == (0, 5)


def test_weights_drawn_in_parts_are_the_same(monkeypatch):
    whole = poisson_weights(30, 10, 1)
    monkeypatch.setattr("tracer.analysis.bootstrap._CHUNK", 32)
    assert np.array_equal(poisson_weights(30, 10, 1), whole)


def test_intervals_are_quantiles_without_what_is_missing():
    rng = np.random.default_rng(0)
    draws = rng.random((101, 4, 3))
    draws[rng.random(draws.shape) < 0.3] = np.nan
    draws[:, 3, 2] = np.nan
    draws[1:, 3, 1] = np.nan
    draws[0, 3, 1] = 0.25
    low, high = percentile_interval(draws, 0.9)
    assert low.shape == high.shape == (4, 3)
    for place in np.ndindex(4, 3):
        there = draws[:, *place][~np.isnan(draws[:, *place])]
        if place == (3, 2):
            assert np.isnan([low[place], high[place]]).all()
        else:
            expected = np.quantile(there, [0.05, 0.95])
            assert [low[place], high[place]] == pytest.approx(expected, rel=1e-12)
    assert (low[3, 1], high[3, 1]) == (0.25, 0.25)


@pytest.mark.parametrize("level", [0, 1, -0.5, math.nan])
def test_a_level_is_a_share(level):
    with pytest.raises(InputError, match="is not a share of draws"):
        percentile_interval(np.zeros((2, 1)), level)
