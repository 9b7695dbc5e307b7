"""Probabilities of statistics in layers: by hand, and their rate where nothing is there."""

import math

import numpy as np
import pytest

from tracer.analysis.layer_tests import adjusted_probability, probability


def test_shares_count_the_recorded_value_and_ties():
    """Draws 1, 2, 3, 3 and 3 recorded: 2 of 4 as large, 4 as small; each one more."""
    drawn = np.array([[1.0], [2], [3], [3]])
    assert probability(np.array([3.0]), drawn, "greater") == pytest.approx([3 / 5])
    assert probability(np.array([3.0]), drawn, "less") == pytest.approx([1])
    assert probability(np.array([3.0]), drawn, "two-sided") == pytest.approx([1])
    assert probability(np.array([4.0]), drawn, "two-sided") == pytest.approx([2 / 5])


def test_rounding_makes_no_difference_where_values_are_alike():
    drawn = np.full((4, 1), 0.3)
    assert probability(np.array([0.1 + 0.2]), drawn, "greater") == pytest.approx([1])
    assert adjusted_probability(np.array([0.1 + 0.2]), drawn, "greater") == pytest.approx([1])


def test_what_was_not_observed_or_never_drawn_has_no_probability():
    observed, drawn = np.array([math.nan, 1.0]), np.array([[1.0, math.nan], [2, math.nan]])
    assert np.isnan(probability(observed, drawn, "greater")).all()
    assert np.isnan(adjusted_probability(observed, drawn, "greater")).all()


@pytest.mark.parametrize("side", ["greater", "less"])
def test_one_row_is_not_corrected(side):
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(99, 1))
    for value in (-2.5, 0.3, 2.0):
        observed = np.array([value])
        plain = probability(observed, drawn, side)
        assert adjusted_probability(observed, drawn, side) == pytest.approx(plain)


def test_the_rate_of_any_false_row_is_five_percent():
    """6,000 times six rows, alike by half, and nothing there; 99 % band of a binomial share.

    The plain probability would be below 5 % somewhere in a fifth to a quarter of them."""
    rng = np.random.default_rng(1)
    hits = plain = 0
    for _ in range(6000):
        shared, own = rng.normal(size=(20, 1)), rng.normal(size=(20, 6))
        every = (shared + own) * np.array([1, 1, 5, 1, 1, 0.1])
        hits += adjusted_probability(every[0], every[1:], "greater").min() <= 0.05
        plain += probability(every[0], every[1:], "greater").min() <= 0.05
    band = 2.576 * math.sqrt(0.05 * 0.95 / 6000)
    assert abs(hits / 6000 - 0.05) < band
    assert plain / 6000 > 0.12


def test_adjusted_two_sided_takes_both_ends():
    drawn = np.random.default_rng(2).normal(size=(199, 2))
    observed = np.array([-6.0, 0.0])
    assert adjusted_probability(observed, drawn, "two-sided")[0] == 1 / 200
    assert adjusted_probability(observed, drawn, "greater")[0] > 0.5
