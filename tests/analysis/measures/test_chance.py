"""Probabilities, bands and intervals from draws, by hand; and how often they err by chance."""

import math

import numpy as np
import polars as pl
import pytest

from tracer.analysis.measures.chance import (
    adjusted_probability,
    aligned,
    chance_columns,
    interval_columns,
    probability,
)

NAN = math.nan


def test_probability_counts_draws_as_far_the_observed_one_among_them():
    """Of 9 draws 0..8: 2 are >= 7, so 2 * (2 + 1) / 10; none is <= -1: 2 * 1 / 10; 4 is the middle.

    A value that is not there, or was never drawn, has none."""
    drawn = np.arange(9.0)[:, None] + np.zeros(5)
    drawn[:, 4] = NAN
    found = probability(np.array([7.0, -1.0, 4.0, NAN, 1.0]), drawn)
    np.testing.assert_allclose(found, [0.6, 0.2, 1.0, NAN, NAN])


def test_a_draw_that_repeats_the_value_but_for_rounding_is_as_far():
    """0.1 + 0.2 is not 0.3: of 3 draws 2 are as large, 2 * (2 + 1) / 4, and at most 1."""
    drawn = np.array([[0.1 + 0.2], [0.4], [0.0]])
    assert probability(np.array([0.3]), drawn)[0] == 1
    drawn[1] = 0.0
    assert probability(np.array([0.3 + 1e-13]), drawn)[0] == 1
    assert probability(np.array([0.3 + 1e-9]), drawn)[0] == pytest.approx(0.5)


def test_draws_without_a_row_are_left_out():
    """Two of four draws have the row: 1, 2. Observed 3: 2 * (0 + 1) / 3."""
    drawn = np.array([[1.0], [NAN], [2.0], [NAN]])
    assert probability(np.array([3.0]), drawn)[0] == pytest.approx(2 / 3)


def test_adjusted_probability_compares_with_the_farthest_row_of_each_draw():
    """Observed (4, 0), drawn (-1, 10), (-1, -10), (-1, 10), (-1, -10): means 0.

    Deviations are 2 and sqrt(80). In those the observed rows are 2 and 0 off, those of each draw
    0.5 and 1.118. No draw reaches 2: 1 of 5. All reach 0: 5 of 5."""
    drawn = np.array([[-1.0, 10], [-1, -10], [-1, 10], [-1, -10]])
    np.testing.assert_allclose(adjusted_probability(np.array([4.0, 0]), drawn), [0.2, 1.0])


def test_a_row_that_chance_cannot_change():
    """The same in all 4 draws: as drawn it is sure; any other value never occurred, 1 of 5.

    0.3 beside four times 0.25 is 2 deviations off, 2.5 beside 1, 2, 3, 4 is at the mean, whose
    draws are 1.34 off at most."""
    drawn = np.array([[0.25, 1.0], [0.25, 2], [0.25, 3], [0.25, 4]])
    assert adjusted_probability(np.array([0.25, 2.5]), drawn)[0] == 1
    assert adjusted_probability(np.array([0.3, 2.5]), drawn)[0] == pytest.approx(0.2)


def test_a_row_without_a_draw_or_a_value_has_no_probability():
    drawn = np.array([[NAN, 1.0, 3.0], [NAN, 2.0, NAN]])
    found = adjusted_probability(np.array([1.0, NAN, 1.0]), drawn)
    assert np.isnan(found).tolist() == [True, True, False]


def test_columns_of_a_value():
    """Draws 0..100: mean 50, the middle 90 % from 5 to 95."""
    drawn = np.arange(101.0)[:, None]
    found = chance_columns("load", np.array([100.0]), drawn, 0.9)
    assert list(found) == [
        "load_chance",
        "load_chance_low",
        "load_chance_high",
        "load_p",
        "load_p_adjusted",
    ]
    assert [column[0] for column in found.values()][:3] == pytest.approx([50, 5, 95])
    assert found["load_p"][0] == pytest.approx(2 * 2 / 102)


def test_columns_of_an_interval():
    """Draws 0..100 of 40, by hand in test_intervals; as they are where values move in jumps.

    A bound that a draw or the value breaks is none: here 50 was said to be the largest."""
    drawn = np.arange(101.0)[:, None]

    def found(bounds):
        told = interval_columns(
            "load", np.array([40.0]), drawn, 0.9, widened=np.array([2.0]), bounds=bounds
        )
        assert list(told) == ["load_low", "load_high"]
        return [column[0] for column in told.values()]

    assert found(None) == pytest.approx([5, 95])
    assert found((-math.inf, math.inf)) == pytest.approx([-60, 120])
    assert found((0.0, 50.0)) == pytest.approx([0, 100])


def test_a_value_that_every_draw_repeats_is_not_tested():
    """The first row is; the second is the value in each draw that has it; the third never is."""
    drawn = np.array([[1.0, 0.1 + 0.2, 5], [0, NAN, 5], [1, 0.3, 5]])
    found = chance_columns("load", np.array([1.0, 0.3, 4.0]), drawn, 0.9)
    assert np.isnan(found["load_p"]).tolist() == [False, True, False]
    assert np.isnan(found["load_p_adjusted"]).tolist() == [False, True, False]
    assert found["load_chance"][1] == pytest.approx(0.3)


def test_rows_are_found_by_their_key_wherever_they_stand():
    observed = pl.DataFrame({"layer_id": [1, 1, 2], "name": ["a", None, "a"], "v": [0, 0, 0]})
    draw = pl.DataFrame({"layer_id": [2, 1], "name": ["a", None], "v": [5, 6]})
    np.testing.assert_array_equal(aligned(observed, ["layer_id", "name"], draw, "v"), [NAN, 6, 5])
    one = pl.DataFrame({"v": [3]})
    assert aligned(one, [], one, "v").tolist() == [3]


@pytest.mark.parametrize("rows", [1, 20])
def test_false_findings_are_as_rare_as_said(rows):
    """4,000 observations from the very distribution of their 99 draws, in rows that go together.

    Of single rows and of all rows at once 5 % are to fall below 0.05, within the 99 % band of 4,000
    trials: 4.1 % to 5.9 %. Two-sided probabilities of 99 draws are multiples of 0.02, so 4 %
    are below 0.05 there, and 0.06 is the next."""
    rng = np.random.default_rng(0)
    single = every = 0
    for _ in range(4000):
        made = rng.normal(size=(100, rows)) + rng.normal(size=(100, 1))
        single += probability(made[0], made[1:])[0] <= 0.04
        every += (adjusted_probability(made[0], made[1:]) <= 0.05).any()
    assert 0.032 < single / 4000 < 0.048
    assert 0.041 < every / 4000 < 0.059


def test_a_result_without_rows_has_all_columns(make_lake, request_of, take):
    """One domain overlaps with no other: the columns, in order and type, are those of two."""
    one, two = (request_of(name, name, [{3: {0: 0.6, 1: 0.4}}]) for name in ("a", "b"))
    empty = take(make_lake([one]), "domain_overlap", draws=3)
    some = take(make_lake([one, two], folder="two"), "domain_overlap", draws=3)
    assert (empty.height, some.height) == (0, 1)
    assert empty.schema == some.schema
    assert {"jaccard_low", "jaccard_chance", "jaccard_p_adjusted"} <= set(empty.columns)
