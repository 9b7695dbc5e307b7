"""Lorenz curves, Gini indices, stability scores and depths of finished audits."""

import numpy as np
import pytest

from tracer.analysis.audit import audit
from tracer.analysis.concentration import (
    concentration,
    depth_profile,
    lorenz_curve,
    stability,
)


@pytest.fixture
def three(make_lake, request_of):
    """k = 2 of 4 experts in layers 1 and 3; a has two tokens, b and c one each.

    layer 1: a {0: .35, 1: .35, 2: .2, 3: .1}, lists 0 and 1; b {0: .6, 2: .4}; c {0: .5, 3: .5}.
    """
    return audit(
        make_lake(
            [
                request_of(
                    "qa",
                    "a",
                    [
                        {1: {0: 0.7, 2: 0.4}, 3: {0: 0.9, 1: 0.1}},
                        {1: {1: 0.7, 3: 0.2}, 3: {0: 0.9, 1: 0.1}},
                    ],
                ),
                request_of("qb", "b", [{1: {0: 0.6, 2: 0.4}, 3: {0: 0.9, 1: 0.1}}]),
                request_of("qc", "c", [{1: {0: 0.5, 3: 0.5}, 3: {0: 0.9, 1: 0.1}}]),
            ],
            num_experts=4,
        )
    )


def test_full_and_listed_vectors(three):
    """Sums of layer 1: full 1.45, .35, .6, .6; listed 1.45, .35, .4, .5. Layer 3: 2.7 and .3."""
    full, listed, *last = concentration(three)
    assert (full.layer_id, full.vector, full.num_used, full.gini_equal_lists) == (1, "full", 4, 0)
    assert (listed.vector, listed.num_used, listed.gini_equal_lists) == ("listed", 4, 0.5)
    assert full.lorenz == pytest.approx(np.array([0, 0.35, 0.95, 1.55, 3.0]) / 3)
    assert listed.lorenz == pytest.approx(np.array([0, 0.35, 0.75, 1.25, 2.7]) / 2.7)
    assert full.gini == pytest.approx(three.layers[0].gini)
    assert [c.gini for c in last] == pytest.approx([three.layers[1].gini] * 2)
    assert [c.num_used for c in last] == [2, 2]
    for found in (full, listed, *last):
        area = np.trapezoid(found.lorenz, dx=1 / 4)
        assert found.gini == pytest.approx(1 - 2 * area)


def test_a_lorenz_curve_of_nothing_is_straight():
    assert lorenz_curve(np.zeros(4)).tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_stability_by_hand(three):
    """Expert 0 has .35, .6, .5 in three lists; 3 only c's .5, 2 only b's .4, 1 only a's .35."""
    rows = [row for row in stability(three) if row.layer_id == 1]
    assert [(row.expert_id, row.num_domains) for row in rows] == [(0, 3), (3, 1), (2, 1), (1, 1)]
    assert [row.score for row in rows] == pytest.approx([1.45, 0.5, 0.4, 0.35])
    assert rows[0].contribution_std == pytest.approx(np.std([0.35, 0.6, 0.5]))
    assert rows[0].contribution_mean == pytest.approx(1.45 / 3)
    assert [row.member for row in rows] == [True, False, False, False]


def test_depths(three):
    first, last = depth_profile(three)
    assert (first.layer_id, first.depth, last.layer_id, last.depth) == (1, 0, 3, 1)
    assert last.coverage_lift == pytest.approx(0.9 / 0.5)
    assert last.jaccard_mean == 1
