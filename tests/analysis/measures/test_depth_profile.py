"""depth_profile: by hand, beside NumPy, beside the audit, and by chance."""

import itertools
import math

import numpy as np
import pytest

from tests.analysis.measures.conftest import (
    LAYERS,
    NUM_EXPERTS,
    TOP_K,
    arrays_of,
    assert_mean_of,
)
from tests.analysis.measures.test_committee import (
    SETTINGS,
    committee_of,
    lists_of,
    mean_overlap,
)
from tests.analysis.measures.test_lorenz_curve import gini_of
from tracer.analysis.audit import audit
from tracer.analysis.layer_draws import eci_distance


def test_by_hand(make_lake, request_of, take):
    """k = 2 of 4. Layer 1: a {0: .6, 1: .4}, b {0: .5, 2: .5}. Layer 3: both {0: .9, 1: .1}.

    Layer 1: a lists 0, 1, b 0, 2. 0 is in both lists (ranks 1, 1) and alone the committee: 1.1 of
    2. Lift 1.1 / 2 / (1 / 2); density .55 / (.45 / 3). Half of |.6 - .5| + .4 + .5 is .5; shared 1
    of 3. Sums 1.1, .4, .5, 0: Gini (3 * 1.1 + .5 - .4) / (4 * 2).
    Layer 3: 0 (1, 1) beats 1 (2, 2): .9 of 1; density .9 / (.1 / 3).
    Two random pairs of four share 1 of 3 with probability 4/6 and both with 1/6: 7/18.
    """
    lake = make_lake(
        [
            request_of("a", "a", [{1: {0: 0.6, 1: 0.4}, 3: {0: 0.9, 1: 0.1}}]),
            request_of("b", "b", [{1: {0: 0.5, 2: 0.5}, 3: {0: 0.9, 1: 0.1}}]),
        ],
        num_experts=4,
    )
    first, last = take(lake, "depth_profile").rows()
    density = 0.55 / (0.45 / 3)
    overlap, gini = 7 / 18, 3.4 / 8
    start = (1, 0, 1, 1, 1, 0, 0.55, 0.5, 1.1, density, 1 / density)
    assert first == pytest.approx((*start, 0.5, 1 / 3, overlap, gini, gini, 0.5))
    gini = (3 * 1.8 + 0.2) / 8
    assert last == pytest.approx(
        (3, 1, 2, 1, 1, 0, 0.9, 0.5, 1.8, 27, 1 / 27, 0, 1, overlap, gini, gini, 0.5)
    )


def test_a_committee_that_takes_all(make_lake, request_of, take):
    """Each of three experts is in two of three lists: all are members, and density is infinite.

    One domain has no pairs: neither a distance nor an overlap.
    """
    tokens = {"a": {0: 0.75, 1: 0.25}, "b": {1: 0.75, 2: 0.25}, "c": {2: 0.75, 0: 0.25}}
    requests = [request_of(name, name, [{3: token}]) for name, token in tokens.items()]
    (row,) = take(make_lake(requests, num_experts=4), "depth_profile").to_dicts()
    assert (row["size"], row["coverage"], row["depth"]) == (3, 1, 0)
    assert (row["influence_density"], row["inverse_density"]) == (None, 0)
    (row,) = take(make_lake(requests[:1], folder="one"), "depth_profile").to_dicts()
    assert (row["eci_distance"], row["jaccard_mean"]) == (None, None)


def distance_of(eci):
    """Mean over pairs of domains of half the summed differences of shares; eci [domains, E]."""
    shares = eci / eci.sum(axis=1, keepdims=True)
    pairs = itertools.combinations(shares, 2)
    return np.mean([np.abs(one - other).sum() / 2 for one, other in pairs])


@pytest.mark.parametrize(("min_presence", "rank_cutoff"), SETTINGS)
@pytest.mark.parametrize("tokens", ["all", "generated"])
def test_beside_numpy(made, take, tokens, min_presence, rank_cutoff):
    lake, requests = made
    choices = arrays_of(requests, tokens)
    depth = rank_cutoff or TOP_K
    found = take(
        lake, "depth_profile", tokens=tokens, min_presence=min_presence, rank_cutoff=rank_cutoff
    )
    assert found["depth"].to_list() == [0, 0.5, 1]
    for row, layer in zip(found.to_dicts(), LAYERS, strict=True):
        lists = lists_of(choices, layer, depth)
        _, mean, var, candidates, members, _ = committee_of(lists, depth, min_presence)
        eci = np.array([eci for _, eci in lists.values()])
        listed = np.zeros_like(eci)
        for number, (order, values) in enumerate(lists.values()):
            listed[number, order] = values[order]
        coverage = listed[:, members].sum() / listed.sum()
        left = (1 - coverage) / (NUM_EXPERTS - len(members))
        wanted = {
            "layer_id": layer,
            "num_candidates": len(candidates),
            "size": len(members),
            "rank_mean": mean[members].mean(),
            "rank_var": var[members].mean(),
            "coverage": coverage,
            "coverage_lift": coverage / (len(members) / depth),
            "inverse_density": left / (coverage / len(members)),
            "eci_distance": distance_of(eci),
            "jaccard_mean": np.mean(
                [
                    len({*one} & {*other}) / len({*one, *other})
                    for (one, _), (other, _) in itertools.combinations(lists.values(), 2)
                ]
            ),
            "jaccard_closed_form": mean_overlap(depth, depth),
            "gini": gini_of(eci.sum(axis=0)),
            "gini_listed": gini_of(listed.sum(axis=0)),
            "gini_listed_equal": 1 - depth / NUM_EXPERTS,
        }
        assert {name: row[name] for name in wanted} == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(("min_presence", "rank_cutoff"), SETTINGS)
def test_beside_the_audit(made, take, min_presence, rank_cutoff):
    lake, _ = made
    options = {"tokens": "prompt", "min_presence": min_presence}
    expected = audit(lake, rank_cutoff=rank_cutoff or None, **options)
    found = take(lake, "depth_profile", rank_cutoff=rank_cutoff, **options).to_dicts()
    for layer, row in zip(expected.layers, found, strict=True):
        assert row["num_candidates"] == layer.num_candidates
        assert row["size"] == len(layer.committee)
        for name in ("rank_mean", "rank_var", "coverage", "coverage_equal_weight", "gini"):
            assert row[name] == pytest.approx(getattr(layer, name), rel=1e-12), name
        assert row["jaccard_mean"] == pytest.approx(layer.jaccard_mean, rel=1e-12)
        assert row["jaccard_closed_form"] == pytest.approx(layer.jaccard_random, rel=1e-12)
        density = row["influence_density"]
        assert (math.inf if density is None else density) == pytest.approx(layer.influence_density)
        assert row["inverse_density"] == pytest.approx(1 / layer.influence_density, abs=1e-12)


def test_chance_is_domains_that_agree_by_chance(planted, take):
    """Means of draws beside 400 renamings in NumPy; a plant in all domains is on its side."""
    lake, requests = planted
    choices = arrays_of(requests)
    draws = 39
    found = take(lake, "depth_profile", draws=draws)
    rng = np.random.default_rng(6)
    for row, layer in zip(found.to_dicts(), LAYERS, strict=True):
        eci = np.array([eci for _, eci in lists_of(choices, layer, TOP_K).values()])
        drawn = rng.permuted(np.repeat(eci[None], 400, axis=0), axis=2)
        ginis = np.array([[gini_of(one.sum(axis=0))] for one in drawn])
        assert_mean_of([row["gini_chance"]], ginis, draws)
        assert_mean_of([row["eci_distance_chance"]], eci_distance(drawn)[:, None], draws)
        assert row["jaccard_mean_chance"] == pytest.approx(row["jaccard_closed_form"], abs=0.08)
        assert row["eci_distance"] < row["eci_distance_chance"]
        assert row["gini"] > row["gini_chance"]
        assert 0 <= row["inverse_density_chance_low"] <= row["inverse_density_chance_high"]
        assert row["inverse_density_low"] <= row["inverse_density"] <= row["inverse_density_high"]
