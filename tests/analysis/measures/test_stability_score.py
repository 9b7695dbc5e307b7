"""stability_score: by hand, beside NumPy, and beside domains that agree by chance."""

import numpy as np
import pytest

from tests.analysis.measures.conftest import (
    LAYERS,
    NUM_EXPERTS,
    TOP_K,
    arrays_of,
    assert_mean_of,
)
from tests.analysis.measures.test_committee import SETTINGS, committee_of, lists_of


def test_by_hand(make_lake, request_of, take):
    """k = 2 of 5: a {0: .35, 1: .35, 2: .2, 3: .1} lists 0 and 1; b {0: .6, 2: .4}; c {0, 3: .5}.

    Expert 0 has .35, .6, .5 in three lists; 3 only c's .5, 2 only b's .4, 1 only a's .35.
    """
    lake = make_lake(
        [
            request_of("a", "a", [{1: {0: 0.7, 2: 0.4}}, {1: {1: 0.7, 3: 0.2}}]),
            request_of("b", "b", [{1: {0: 0.6, 2: 0.4}}]),
            request_of("c", "c", [{1: {0: 0.5, 3: 0.5}}]),
        ],
        num_experts=5,
    )
    near = pytest.approx
    own = np.array([0.35, 0.6, 0.5])
    assert take(lake, "stability_score").rows() == [
        (1, 0, 3, near(own.mean()), near(own.std()), near(own.sum()), True),
        (1, 3, 1, near(0.5), 0, near(0.5), False),
        (1, 2, 1, near(0.4), 0, near(0.4), False),
        (1, 1, 1, near(0.35), 0, near(0.35), False),
        (1, 4, 0, None, None, 0, False),
    ]


def scores_of(lists):
    """(domains, mean, deviation, score) by expert; NaN where no domain lists it."""
    found = np.full((4, NUM_EXPERTS), np.nan)
    for expert in range(NUM_EXPERTS):
        own = [eci[expert] for order, eci in lists.values() if expert in order]
        found[[0, 3], expert] = len(own), len(own) * np.mean(own) if own else 0
        if own:
            found[1:3, expert] = np.mean(own), np.std(own)
    return found


@pytest.mark.parametrize(("min_presence", "rank_cutoff"), SETTINGS)
@pytest.mark.parametrize("tokens", ["all", "generated"])
def test_beside_numpy(made, take, tokens, min_presence, rank_cutoff):
    lake, requests = made
    choices = arrays_of(requests, tokens)
    depth = rank_cutoff or TOP_K
    found = take(
        lake, "stability_score", tokens=tokens, min_presence=min_presence, rank_cutoff=rank_cutoff
    )
    for layer in LAYERS:
        lists = lists_of(choices, layer, depth)
        rows = found.filter(layer_id=layer)
        assert rows["score"].is_sorted(descending=True)
        rows = rows.sort("expert_id")
        assert rows["expert_id"].to_list() == list(range(NUM_EXPERTS))
        columns = ["num_domains", "eci_mean", "eci_std", "score"]
        np.testing.assert_allclose(
            rows.select(columns).to_numpy().T.astype(float), scores_of(lists), atol=1e-12
        )
        *_, members, _ = committee_of(lists, depth, min_presence)
        assert rows.filter("member")["expert_id"].to_list() == members


def test_chance_is_domains_that_agree_by_chance(planted, take):
    """Each draw renames every domain's experts; 0, which all domains list, is beyond its band."""
    lake, requests = planted
    choices = arrays_of(requests)
    draws = 39
    found = take(lake, "stability_score", draws=draws).sort("layer_id", "expert_id")
    rng = np.random.default_rng(4)
    for layer in LAYERS:
        listed = np.zeros((len(set(choices.domain)), NUM_EXPERTS))
        for row, (order, eci) in zip(listed, lists_of(choices, layer, TOP_K).values(), strict=True):
            row[order] = eci[order]
        drawn = [rng.permuted(listed, axis=1).sum(axis=0) for _ in range(400)]
        rows = found.filter(layer_id=layer)
        assert_mean_of(rows["score_chance"], np.array(drawn), draws)
        assert rows["score_p"][0] == 2 / (draws + 1)
        assert rows["score_low"][0] <= rows["score"][0] <= rows["score_high"][0]
        assert rows["num_domains_chance"].sum() == pytest.approx((listed > 0).sum())
