"""The numbers behind the figures, by hand."""

import dataclasses
import itertools

import pytest

from tracer.report.contributions import contribution_table
from tracer.report.heatmap import heatmap_data
from tracer.report.jaccard import jaccard_data, jaccard_matrix
from tracer.report.lorenz import lorenz_curves, lorenz_points
from tracer.report.palette import NUM_STEPS, scale_css, step
from tracer.report.words import fixed, percent, ranges, sort_key


def test_mean_counts_absent_experts_as_zero(audit):
    """Expert 0: (0.5 + 0.25 + 0.5) / 3; expert 7 only in law: 0.125 / 3."""
    table = contribution_table(audit)

    mean = table.layer(table.mean, 0)

    assert mean == pytest.approx([1.25 / 3, 0.25, 0.25 / 3, 0, 0, 0, 0, 0.125 / 3])
    assert table.layer_ids == (1, 2, 4)


def test_reference_mode_drops_what_is_not_listed(audit):
    """Expert 7 has rank 3 in law, lists are two deep."""
    table = contribution_table(dataclasses.replace(audit, mode="reference"))

    assert table.layer(table.by_domain[0], 0) == [0.5, 0.25, 0, 0, 0, 0, 0, 0]


def test_heatmap_shares_are_parts_per_million_of_the_layer(audit):
    """Law: 0.5, 0.25, 0.125 of 0.875."""
    data = heatmap_data(audit, contribution_table(audit))

    assert data["shares"][1][:8] == [571429, 285714, 0, 0, 0, 0, 0, 142857]
    assert data["largest"] == 666667
    assert data["totals"][1] == [0.875] * 3
    assert data["listed"][0] == []
    assert data["listed"][1] == [[0, 1, 1, 2]] * 3
    assert data["committees"] == [[0], [0, 1], [1]]
    assert [len(view) for view in data["shares"]] == [24] * 4


def test_jaccard_pairs_are_found_whatever_their_order(audit):
    """Pairs (law, hostile), (law, code), (hostile, code); the last is 0.25 in layer 4."""
    data = jaccard_data(audit)

    assert data["values"][1] == [1.0, 0.3333, 0.3333]
    assert data["values"][3] == [1.0, 0.3333, 0.25]
    assert data["values"][0] == [1.0, 0.3333, 0.3055]
    assert jaccard_matrix(data) == [
        [None, 1.0, 0.3333],
        [1.0, None, 0.3055],
        [0.3333, 0.3055, None],
    ]
    assert data["random"] == [0.1905] * 4


def test_lorenz_points_start_with_the_least():
    """Values 3, 0, 1: shares 0, 1/4, 1 at thirds."""
    assert lorenz_points([3, 0, 1]) == [(0, 0), (1 / 3, 0), (2 / 3, 0.25), (1, 1)]
    assert lorenz_points([0, 0]) == []


def test_lorenz_curve_drops_points_a_straight_line_passes(audit):
    curves = lorenz_curves(audit, contribution_table(audit))

    assert [(curve.layer_id, curve.gini) for curve in curves] == [
        (1, 0.8125),
        (2, 0.8125),
        (4, 0.7512),
    ]
    assert curves[0].path.startswith("M0.0 400.0L200.0 400.0L")
    assert curves[0].path.endswith("L400.0 0.0")
    assert curves[0].path.count("L") == 5
    assert [curve.step for curve in curves] == [5, 13, 20]


@pytest.mark.parametrize("mode", ["gate", "reference"])
def test_thinned_curve_encloses_the_audits_gini(made_up_audit, mode):
    """1 - 2 * area below the drawn path agrees with the Gini computed from all values."""
    audit = made_up_audit(3, 128, 4, mode=mode)

    for curve in lorenz_curves(audit, contribution_table(audit)):
        points = [tuple(map(float, pair.split())) for pair in curve.path[1:].split("L")]
        xy = [(x / 400, 1 - y / 400) for x, y in points]
        pairs = itertools.pairwise(xy)
        area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairs)
        assert 1 - 2 * area == pytest.approx(curve.gini, abs=0.002)


def test_scale_has_a_rule_per_step_and_theme():
    css = scale_css()

    assert css.count("{--c:#") == 2 * NUM_STEPS
    assert [step(value) for value in (-1, 0, 0.5, 1, 7)] == [0, 0, 10, 20, 20]


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([3], "3"), ([2, 1], "1, 2"), ([0, 1, 2, 5], "0\N{EN DASH}2, 5")],
)
def test_ranges_join_three_or_more(numbers, text):
    assert ranges(numbers) == text


def test_numbers_that_are_none_have_words():
    inf, nan = float("inf"), float("nan")

    assert [fixed(x, 2) for x in (inf, -inf, nan, None, 1.005)] == ["∞", "-∞", "n/a", "n/a", "1.00"]
    assert percent(nan) == "n/a"
    assert [sort_key(x) for x in (inf, nan, 0.5)] == ["Infinity", "", "0.5"]
