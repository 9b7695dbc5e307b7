"""lorenz_curve: by hand, beside NumPy, its area beside the Gini index, and its chance level."""

import numpy as np
import pytest

from tests.analysis.measures.conftest import (
    LAYERS,
    NUM_EXPERTS,
    TOP_K,
    arrays_of,
    assert_mean_of,
)
from tests.analysis.measures.test_committee import lists_of

VECTORS = ("contributions", "listed", "loads")


def curve(found, vector, layer_id=3):
    return found.filter(vector=vector, layer_id=layer_id)["share"].to_list()


def test_by_hand(make_lake, request_of, take):
    """Law: {0: .7, 1: .3}, {2: .7, 1: .2}; math: {3: .5, 0: .4}; k = 2 of 4.

    Loads 2, 2, 1, 1 of 6. ECI of law .35, .25, .35, 0, of math .4, 0, 0, .5; their sums .75, .25,
    .35, .5 of 1.85. Law lists 0 and 2, math 3 and 0: .75, 0, .35, .5 of 1.6.
    """
    lake = make_lake(
        [
            request_of("a", "law", [{3: {0: 0.7, 1: 0.3}}, {3: {2: 0.7, 1: 0.2}}]),
            request_of("b", "math", [{3: {3: 0.5, 0: 0.4}}]),
        ],
        num_experts=4,
    )
    found = take(lake, "lorenz_curve")
    assert found["num_least"].to_list() == [0, 1, 2, 3, 4] * 3
    assert found["share_of_experts"].to_list() == [0, 0.25, 0.5, 0.75, 1] * 3
    assert curve(found, "loads") == pytest.approx(np.array([0, 1, 2, 4, 6]) / 6)
    assert curve(found, "contributions") == pytest.approx(
        np.array([0, 0.25, 0.6, 1.1, 1.85]) / 1.85
    )
    assert curve(found, "listed") == pytest.approx(np.array([0, 0, 0.35, 0.85, 1.6]) / 1.6)
    equal = found.filter(vector="listed")["share_equal"].to_list()
    assert equal == [0, 0, 0, 0.5, 1]
    assert 1 - 2 * np.trapezoid(equal, dx=1 / 4) == 1 - 2 / 4  # 1 - k / E
    for vector in ("loads", "contributions"):
        some = found.filter(vector=vector)
        assert some["share_equal"].to_list() == some["share_of_experts"].to_list()
    first = take(lake, "lorenz_curve", rank_cutoff=1)
    assert curve(first, "listed") == pytest.approx(np.array([0, 0, 0, 0.35, 0.85]) / 0.85)
    assert first.filter(vector="listed")["share_equal"].to_list() == [0, 0, 0, 0, 1]


def test_a_layer_without_weight_has_no_curve_of_it(make_lake, request_of, take):
    lake = make_lake([request_of("a", "law", [{3: {0: 0.0, 1: 0.0}}])], num_experts=4)
    found = take(lake, "lorenz_curve")
    assert set(found["vector"]) == {"loads"}
    assert curve(found, "loads") == [0, 0, 0, 0.5, 1]


def vectors_of(choices, layer, depth):
    """What each expert holds, by vector."""
    lists = lists_of(choices, layer, depth)
    listed = np.zeros(NUM_EXPERTS)
    for order, eci in lists.values():
        listed[order] += eci[order]
    return {
        "loads": np.bincount(choices.ids[layer].ravel(), minlength=NUM_EXPERTS),
        "contributions": np.sum([eci for _, eci in lists.values()], axis=0),
        "listed": listed,
    }


def gini_of(values):
    """Mean distance of two values over twice their mean."""
    return np.abs(values[:, None] - values).mean() / (2 * values.mean())


@pytest.mark.parametrize("rank_cutoff", [0, 3])
@pytest.mark.parametrize("tokens", ["all", "prompt", "last-prompt"])
def test_beside_numpy(made, take, tokens, rank_cutoff):
    lake, requests = made
    choices = arrays_of(requests, tokens)
    found = take(lake, "lorenz_curve", tokens=tokens, rank_cutoff=rank_cutoff)
    assert found.height == len(LAYERS) * len(VECTORS) * (NUM_EXPERTS + 1)
    for layer in LAYERS:
        held = vectors_of(choices, layer, rank_cutoff or TOP_K)
        for vector, values in held.items():
            shares = curve(found, vector, layer)
            wanted = [0, *np.cumsum(np.sort(values)) / values.sum()]
            np.testing.assert_allclose(shares, wanted, rtol=0, atol=1e-12)
            assert 1 - 2 * np.trapezoid(shares, dx=1 / NUM_EXPERTS) == pytest.approx(
                gini_of(values)
            )


def test_chance_is_even_choices(planted, take):
    """Beside 400 simulations; the plant lies below the band, the ends of a curve do not move."""
    lake, requests = planted
    draws = 39
    found = take(lake, "lorenz_curve", draws=draws)
    num_tokens = len(arrays_of(requests).ids[1])
    rng = np.random.default_rng(2)
    simulated = []
    for _ in range(400):
        ids = np.argsort(rng.random((num_tokens, NUM_EXPERTS)), axis=1)[:, :TOP_K]
        load = np.sort(np.bincount(ids.ravel(), minlength=NUM_EXPERTS))
        simulated.append([0, *np.cumsum(load) / load.sum()])
    for layer in LAYERS:
        rows = found.filter(vector="loads", layer_id=layer)
        assert_mean_of(rows["share_chance"], np.array(simulated), draws)
        middle = rows.filter(num_least=NUM_EXPERTS // 2)
        assert middle["share_p"].item() == 2 / (draws + 1)
        assert middle["share_high"].item() < middle["share_chance_low"].item()
    ends = found.filter(found["num_least"].is_in([0, NUM_EXPERTS]))
    for name in ("share_low", "share_high", "share_chance"):
        assert ends[name].to_list() == ends["share"].to_list()
