"""Committees of many draws at once, against the audit's own SQL, draw by draw."""

import math
import time

import numpy as np
import polars as pl
import pytest

from tracer.analysis.committee_draws import committee_draws, list_overlap
from tracer.analysis.layers import Rules, audit_layers
from tracer.analysis.sql import empty_connection


def audited(contributions, rank_cutoff, min_presence):
    """Each draw as a layer of one audit, through SQL; layers without a row are left out."""
    num_domains, num_experts = contributions.shape[1:]
    draw, domain, expert = np.nonzero(~np.isnan(contributions))
    frame = pl.DataFrame(
        {
            "layer_id": draw,
            "domain": np.array([f"d{i:02d}" for i in range(num_domains)])[domain],
            "expert_id": expert,
            "contribution": contributions[draw, domain, expert],
        }
    )
    rules = Rules(False, num_domains, num_experts, rank_cutoff, min_presence)
    return audit_layers(empty_connection(), frame, rules).layers


def assert_equal_to_audit(contributions, rank_cutoff, min_presence=0.8):
    found = committee_draws(contributions, rank_cutoff=rank_cutoff, min_presence=min_presence)
    layers = audited(contributions, rank_cutoff, min_presence)
    assert len(layers) > 0
    for layer in layers:
        draw = layer.layer_id
        assert set(np.flatnonzero(found.members[draw]).tolist()) == set(layer.committee), draw
        assert found.committee_size[draw] == len(layer.committee)
        assert found.num_candidates[draw] == layer.num_candidates
        for name in ("rank_mean", "rank_var", "coverage", "gini"):
            value = getattr(found, name)[draw]
            assert value == pytest.approx(getattr(layer, name), rel=1e-12, abs=1e-14), name
        lift = layer.coverage / layer.coverage_equal_weight
        assert found.coverage_lift[draw] == pytest.approx(lift, rel=1e-12)
        # 1 - coverage may cancel
        density = layer.influence_density
        assert found.influence_density[draw] == pytest.approx(density, rel=1e-9)
        jaccard = pytest.approx(layer.jaccard_mean, rel=1e-12, nan_ok=True)
        assert found.jaccard_mean[draw] == jaccard
        assert list_overlap(contributions[draw : draw + 1], rank_cutoff)[0] == jaccard
    return layers


@pytest.mark.parametrize("min_presence", [0.5, 0.8, 1.0])
@pytest.mark.parametrize("rank_cutoff", [1, 3, 12])
def test_random_contributions(rank_cutoff, min_presence):
    """Experts without a row, and lists shorter than k."""
    rng = np.random.default_rng([rank_cutoff, int(10 * min_presence)])
    contributions = rng.random((25, 5, 12))
    contributions[rng.random(contributions.shape) < 0.6] = np.nan
    layers = assert_equal_to_audit(contributions, rank_cutoff, min_presence)
    if min_presence == 0.8:  # with and without a fallback, all but certainly
        assert {layer.fallback_used for layer in layers} >= {True}


def test_ties_are_broken_by_expert_id_and_equal_points_stay():
    """Whole contributions of 0 to 2, zeros chosen and not chosen, so that most ranks are ties."""
    rng = np.random.default_rng(5)
    contributions = rng.integers(0, 3, (40, 4, 9)).astype(float)
    contributions[rng.random(contributions.shape) < 0.2] = np.nan
    layers = assert_equal_to_audit(contributions, 4)
    assert max(len(layer.committee) for layer in layers) > 1


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_planted_committee(size):
    """Experts 0 to ``size`` - 1 lead in all domains, in an order that trades mean for variance."""
    rng = np.random.default_rng(size)
    contributions = rng.random((20, 9, 16)) * 0.1
    for expert in range(size):
        swing = rng.random((20, 9)) < 0.4 / (expert + 1)
        contributions[:, :, expert] += 2 - 0.3 * expert + swing * 0.5
    layers = assert_equal_to_audit(contributions, 4)
    assert np.mean([set(layer.committee) <= set(range(size)) for layer in layers]) > 0.9


def test_a_domain_without_rows_counts_unless_it_is_not_present():
    """One of three domains is empty: n = 3 as in the audit, or n = 2 where it is not present.

    Expert 1 leads both others: rank mean (1 + 1 + 3) / 3 and presence 2/3, or 1 and 1."""
    contributions = np.full((1, 3, 4), np.nan)
    contributions[0, :2, 1], contributions[0, :2, 2] = 0.6, 0.4
    assert_equal_to_audit(contributions, 2)
    there = np.array([[True, True, False]])
    found = committee_draws(contributions, rank_cutoff=2, min_presence=0.8, present=there)
    assert (found.rank_mean[0], found.rank_var[0], found.coverage[0]) == (1, 0, pytest.approx(0.6))
    assert found.presence_top[0] == 1
    two = committee_draws(contributions[:, :2], rank_cutoff=2, min_presence=0.8)
    assert np.array_equal(two.members, found.members)
    assert two.jaccard_mean[0] == found.jaccard_mean[0] == 1


def test_presence_of_the_most_listed_by_hand():
    """k = 2, lists {0, 1}, {0, 2}, {0, 1}: the two most listed are in 3 and 2 of 3 lists."""
    contributions = np.full((1, 3, 4), np.nan)
    for domain, (first, second) in enumerate([(0, 1), (0, 2), (0, 1)]):
        contributions[0, domain, first], contributions[0, domain, second] = 0.6, 0.4
    found = committee_draws(contributions, rank_cutoff=2, min_presence=0.8)
    assert found.presence_top[0] == pytest.approx(5 / 6)


def test_a_draw_without_any_row_has_no_committee():
    found = committee_draws(np.full((2, 3, 4), np.nan), rank_cutoff=2, min_presence=0.8)
    assert found.committee_size.tolist() == [0, 0]
    assert not found.members.any()
    assert np.isnan(found.coverage).all()
    assert np.isnan(found.influence_density).all()
    assert np.isnan(found.rank_mean).all()
    assert np.isnan(found.jaccard_mean).all()


def test_members_that_hold_everything():
    """Coverage 1 leaves nothing for the others, so their density is infinite."""
    contributions = np.full((1, 2, 4), np.nan)
    contributions[0, :, 3] = 0.5
    found = committee_draws(contributions, rank_cutoff=2, min_presence=0.8)
    assert (found.coverage[0], found.influence_density[0]) == (1, math.inf)
    assert found.coverage_lift[0] == 2


def test_parts_of_draws_give_what_all_give(monkeypatch):
    contributions = np.random.default_rng(1).random((50, 3, 8))
    whole = committee_draws(contributions, rank_cutoff=3, min_presence=0.8)
    overlap = list_overlap(contributions, 3)
    monkeypatch.setattr("tracer.analysis.committee_draws._CELLS", 7 * 24)
    parts = committee_draws(contributions, rank_cutoff=3, min_presence=0.8)
    for name in ("members", "coverage", "gini", "jaccard_mean"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name))
    assert np.array_equal(overlap, list_overlap(contributions, 3))


def test_a_thousand_draws_of_a_published_size_take_well_below_a_second():
    """Nine domains, 64 experts, k = 8; the bound leaves room for a busy machine."""
    contributions = np.random.default_rng(0).random((1000, 9, 64))
    used = time.process_time()
    committee_draws(contributions, rank_cutoff=8, min_presence=0.8)
    assert time.process_time() - used < 2
