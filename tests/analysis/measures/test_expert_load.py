"""expert_load: by hand, and beside NumPy on a planted and a random run."""

import numpy as np
import pytest

from tests.analysis.measures.conftest import NUM_EXPERTS, arrays_of


def test_by_hand(make_lake, request_of, take):
    """Three tokens choose {0, 1}, {0, 2}, {0, 1}: 3, 2, 1 and 0 of 6 choices; 1/4 would be even."""
    tokens = [{3: {0: 0.6, 1: 0.4}}, {3: {0: 0.6, 2: 0.4}}, {3: {0: 0.6, 1: 0.4}}]
    lake = make_lake([request_of("q", "law", tokens)], num_experts=4)
    assert take(lake, "expert_load").rows() == [
        (3, 0, 3, 0.5, 2.0),
        (3, 1, 2, pytest.approx(1 / 3), pytest.approx(4 / 3)),
        (3, 2, 1, pytest.approx(1 / 6), pytest.approx(2 / 3)),
        (3, 3, 0, 0.0, 0.0),
    ]


@pytest.mark.parametrize("tokens", ["all", "prompt", "generated", "last-prompt"])
def test_beside_numpy(made, take, tokens):
    lake, requests = made
    choices = arrays_of(requests, tokens)
    found = take(lake, "expert_load", tokens=tokens)
    for layer, ids in choices.ids.items():
        share = np.bincount(ids.ravel(), minlength=NUM_EXPERTS) / ids.size
        rows = found.filter(layer_id=layer)
        assert rows["expert_id"].to_list() == list(range(NUM_EXPERTS))
        np.testing.assert_allclose(rows["load"], share, rtol=0, atol=1e-12)
        np.testing.assert_allclose(rows["relative_load"], share * NUM_EXPERTS, atol=1e-12)


def test_chance_is_an_even_share(made, take):
    """Each draw's loads of a layer sum to 1, so do their means; an even share is 1 of 8."""
    found = take(made[0], "expert_load", draws=99)
    assert found["load_chance"].to_list() == pytest.approx([1 / 8] * found.height, abs=0.02)
    for layer in found.partition_by("layer_id"):
        assert layer["load_chance"].sum() == pytest.approx(1)
    never = found.filter(expert_id=7)
    assert (never["load_p_adjusted"] <= 0.02).all()
    assert (found["load_chance_low"] < found["load_chance"]).all()
    assert ((found["load_low"] <= found["load"]) & (found["load"] <= found["load_high"])).all()
