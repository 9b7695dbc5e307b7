"""router_neighbours: by hand, and beside NumPy on a planted and a random run."""

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, NUM_EXPERTS, TOP_K, arrays_of
from tracer.errors import InputError


def test_by_hand(make_lake, request_of, take):
    """Rows (1, 0), (2, 0), (0, 1), (1, 1) have cosine 1, 0 and the root of 1/2 with each other.

    0 and 1 are neighbours, both chosen for 2 of 4 tokens, each for 3 of 4 and for 2 of 4.
    3 is as near to 0 as to 1 and to 2; 0 has the smallest id.
    """
    chosen = [(0, 1), (0, 1), (0, 2), (2, 3)]
    tokens = [{3: {a: 0.6, b: 0.4}} for a, b in chosen]
    lake = make_lake(
        [request_of("q", "law", tokens)],
        num_experts=4,
        routers={3: [[1, 0], [2, 0], [0, 1], [1, 1]]},
    )
    half, even = pytest.approx(np.sqrt(0.5)), pytest.approx(2 / 3)
    assert take(lake, "router_neighbours").rows() == [
        (3, 0, 1, 1.0, 0.75, 0.5, 0.5, 0.375, pytest.approx(4 / 3), even),
        (3, 1, 0, 1.0, 0.5, 0.75, 0.5, 0.375, pytest.approx(4 / 3), even),
        (3, 2, 3, half, 0.5, 0.25, 0.25, 0.125, 2.0, even),
        (3, 3, 0, half, 0.25, 0.75, 0.0, 0.1875, 0.0, even),
    ]


@pytest.mark.parametrize("tokens", ["all", "prompt"])
def test_beside_numpy(made, take, tokens):
    lake, requests = made
    choices = arrays_of(requests, tokens)
    rng = np.random.default_rng(11)  # as the fixture draws the routers
    found = take(lake, "router_neighbours", tokens=tokens)
    for layer in LAYERS:
        matrix = rng.normal(size=(NUM_EXPERTS, 4)).astype(np.float32).astype(float)
        unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
        cosine = unit @ unit.T - 2 * np.eye(NUM_EXPERTS)
        near = cosine.argmax(axis=1)
        held = (choices.ids[layer][:, :, None] == np.arange(NUM_EXPERTS)).any(axis=1)
        both = (held & held[:, near]).mean(axis=0)
        share = held.mean(axis=0)
        rows = found.filter(layer_id=layer)
        np.testing.assert_array_equal(rows["neighbour_id"], near)
        np.testing.assert_allclose(rows["cosine"], cosine.max(axis=1), atol=1e-12)
        np.testing.assert_allclose(rows["token_share"], share, atol=1e-12)
        np.testing.assert_allclose(rows["neighbour_share"], share[near], atol=1e-12)
        np.testing.assert_allclose(rows["co_selection"], both, atol=1e-12)
        product = share * share[near]
        there = product > 0
        assert rows["ratio"].is_null().to_list() == (~there).tolist()
        np.testing.assert_allclose(
            rows["ratio"].to_numpy()[there], both[there] / product[there], atol=1e-12
        )


@pytest.fixture
def twins(make_lake, request_of):
    """Experts 2 e and 2 e + 1 have like rows and are chosen together in 60 % of 240 tokens."""
    rng = np.random.default_rng(0)
    requests = []
    for number in range(12):
        tokens = []
        for _ in range(20):
            pair = int(rng.integers(0, NUM_EXPERTS // 2))
            ids = [2 * pair, 2 * pair + 1]
            if rng.random() > 0.6:
                ids = rng.permutation(NUM_EXPERTS)[:TOP_K].tolist()
            tokens.append({3: {ids[0]: 0.6, ids[1]: 0.4}})
        requests.append(request_of(f"q{number}", "law", tokens))
    rows = np.repeat(rng.normal(size=(NUM_EXPERTS // 2, 6)), 2, axis=0)
    rows += 0.01 * rng.normal(size=rows.shape)
    return make_lake(requests, routers={3: rows.tolist()})


def test_twins_are_told_from_chance_which_is_that_of_even_routing(twins, take):
    """Loads are nearly even, so the mean of the draws is near the closed form, 8 / (2 * 7)."""
    found = take(twins, "router_neighbours", draws=39)
    assert found["neighbour_id"].to_list() == [1, 0, 3, 2, 5, 4, 7, 6]
    assert (found["ratio_p_adjusted"] <= 0.05).all()
    assert (found["ratio"] > found["ratio_chance_high"]).all()
    assert found["ratio_closed_form"][0] == pytest.approx(4 / 7)
    assert found["ratio_chance"].to_list() == pytest.approx([4 / 7] * 8, abs=0.08)
    again = take(twins, "router_neighbours")
    assert found.select(again.columns).equals(again)  # cosines are held while draws are made


def test_runs_without_routers_are_refused(make_lake, request_of, take):
    lake = make_lake([request_of("q", "law", [{3: {0: 0.6, 1: 0.4}}])])
    with pytest.raises(InputError, match="no routers") as refused:
        take(lake, "router_neighbours")
    assert "--router-weights" in refused.value.hint
