"""Intervals with their bias taken off: by hand, by properties, and by how often they are right.

The long version of the last is benchmarks/interval_coverage.py.
"""

import math

import numpy as np
import pytest

from benchmarks.interval_coverage import JUMPS, coverage
from tracer.analysis.bootstrap import percentile_interval
from tracer.analysis.intervals import corrected_interval, widening
from tracer.errors import InputError

NAN = math.nan
HUNDRED = np.arange(101.0)[:, None]  # mean 50, the middle 90 % from 5 to 95


def ends(value, drawn, **options):
    low, high = corrected_interval(np.array([value]), drawn, 0.9, **options)
    return [low.item(), high.item()]


def test_by_hand():
    """Value 40: a bias of 10, so percentiles are moved by -20; twice as wide about 30."""
    assert ends(40.0, HUNDRED) == pytest.approx([-15, 75])
    assert ends(40.0, HUNDRED, widened=2.0) == pytest.approx([-60, 120])
    assert ends(40.0, HUNDRED, bounds=(0.0, 100.0)) == pytest.approx([0, 75])
    assert ends(40.0, HUNDRED, widened=2.0, bounds=(0.0, 100.0)) == pytest.approx([0, 100])


def test_a_value_beside_all_draws_lies_in_its_interval():
    """-100: the bias is 150, percentiles are moved to -295 and -205; 300: to 505 and 595."""
    assert ends(-100.0, HUNDRED) == pytest.approx([-295, -100])
    assert ends(300.0, HUNDRED) == pytest.approx([300, 595])
    assert ends(-100.0, HUNDRED, bounds=(-100.0, 100.0)) == [-100, -100]


def test_draws_that_never_vary():
    """What they repeat is the interval; another number is bias alone: 3 - 0.5 to the value 3."""
    assert ends(0.3, np.full((9, 1), 0.3)) == pytest.approx([0.3, 0.3])
    assert ends(3.0, np.full((9, 1), 3.5)) == pytest.approx([2.5, 3.0])


def test_what_is_missing_or_infinite():
    """Draws without a value are left out; an infinite one leaves percentiles."""
    some = np.vstack([HUNDRED, [[NAN]]])
    assert ends(40.0, some) == pytest.approx([-15, 75])
    assert np.isnan(ends(40.0, np.full((3, 1), NAN))).all()
    assert np.isnan(ends(NAN, HUNDRED)).all()
    assert np.isnan(ends(40.0, HUNDRED, widened=NAN)).all()
    infinite = np.vstack([HUNDRED, [[math.inf]]])
    assert ends(40.0, infinite) == pytest.approx([5.05, 95.95])
    with pytest.raises(InputError, match="level"):
        corrected_interval(np.zeros(1), HUNDRED, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_on_their_own_and_move_with_the_unit(seed):
    """20 rows at once are 20 rows; a x + c gives a low + c, a high + c, changed over for a < 0."""
    rng = np.random.default_rng(seed)
    drawn = rng.gamma(2, size=(49, 20)) * rng.integers(1, 9, 20)
    drawn[rng.random(drawn.shape) < 0.1] = NAN
    value, widened = rng.gamma(2, size=20), 1 + rng.random(20)
    low, high = corrected_interval(value, drawn, 0.95, widened=widened)
    assert (low <= value).all()
    assert (value <= high).all()
    for row in range(20):
        one = corrected_interval(value[[row]], drawn[:, [row]], 0.95, widened=widened[row])
        np.testing.assert_allclose(np.ravel(one), [low[row], high[row]])
    more = corrected_interval(3 * value + 2, 3 * drawn + 2, 0.95, widened=widened)
    np.testing.assert_allclose(more, [3 * low + 2, 3 * high + 2])
    less = corrected_interval(-value, -drawn, 0.95, widened=widened)
    np.testing.assert_allclose(less, [-high, -low])
    inside = corrected_interval(value, drawn, 0.95, widened=widened, bounds=(0.0, math.inf))
    np.testing.assert_allclose(inside, [np.maximum(low, 0), high])


def test_widening_by_hand():
    """Quantiles from a table: 12.706, 4.303, 3.182, 2.365, 2.042 for 1, 2, 3, 7, 30; 1.960."""
    found = widening(0.95, [2, 3, 4, 8, 32, 3, 1, 4], [1, 1, 1, 1, 2, 1, 1, 4])
    student = np.array([12.706, 4.303, 3.182, 2.365, 2.042, 4.303])
    size = np.sqrt(np.array([2, 3 / 2, 4 / 3, 8 / 7, 32 / 30, 3 / 2]))
    np.testing.assert_allclose(found[:6], size * student / 1.95996, rtol=2e-3)
    assert np.isnan(found[6:]).all()  # a request that nothing can take the place of
    assert widening(0.95, [10**6], [4]).item() == pytest.approx(1, abs=1e-5)


def test_a_mean_of_few_is_held_as_often_as_said():
    """5 normal numbers, 4,000 times: 95 % of intervals hold the mean, those of percentiles 83 %."""
    rng = np.random.default_rng(0)
    made = rng.normal(size=(5, 4000))
    drawn = made[rng.integers(0, 5, (399, 5))].mean(axis=1)
    wide = widening(0.95, [5], [1])
    low, high = corrected_interval(made.mean(axis=0), drawn, 0.95, widened=wide)
    assert ((low <= 0) & (high >= 0)).mean() == pytest.approx(0.95, abs=0.03)
    low, high = percentile_interval(drawn, 0.95)
    assert ((low <= 0) & (high >= 0)).mean() < 0.86


def test_intervals_are_right_where_percentiles_are_not():
    """60 lakes of four domains that differ little, 8 requests each, tokens of a request alike.

    Percentiles of biased measures hold the truth next to never. What moves in jumps keeps them."""
    found = coverage("near", 8, 60, 99)
    for name in ("mutual_information", "divergence", "purity", "vocabulary"):
        assert found[name]["percentile"][0] < 0.05
        assert found[name]["bca"][0] < 0.2
        assert found[name]["told"][0] > 0.75
    assert min(found[name]["told"][0] for name in ("mutual_information", "divergence")) > 0.9
    for name in ("load", "eci"):
        assert found[name]["told"][0] >= found[name]["percentile"][0]
    for name in JUMPS:
        assert found[name]["told"] == found[name]["percentile"]
        assert found[name]["told"][0] > found[name]["shifted"][0]
