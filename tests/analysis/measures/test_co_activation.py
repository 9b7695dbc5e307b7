"""co_activation and co_activation_adjacent: by hand, beside NumPy, and their chance levels."""

import itertools

import numpy as np
import pytest

from tests.analysis.measures.conftest import NUM_EXPERTS, arrays_of


def test_by_hand(make_lake, request_of, take):
    """Four tokens choose {0, 1}, {1, 0}, {0, 2}, {1, 2}: 0 and 1 are each chosen by 3, 2 by 2.

    Pair 0, 1: both in 2 of 4 tokens, 2/3 of either's; phi = (4 * 2 - 9) / (sqrt(3) * sqrt(3));
    lift = 4 * 2 / 9. Pair 0, 2: 1 of 4, 1/3 and 1/2; (4 - 6) / (sqrt(3) * sqrt(4)); 4 / 6.
    """
    tokens = [{3: {a: 0.6, b: 0.4}} for a, b in [(0, 1), (1, 0), (0, 2), (1, 2)]]
    lake = make_lake([request_of("q", "law", tokens)], num_experts=4)
    third = pytest.approx(1 / 3)
    phi, lift = pytest.approx(-2 / 12**0.5), pytest.approx(2 / 3)
    assert take(lake, "co_activation").rows() == [
        (3, 0, 1, 2, 0.5, lift, lift, pytest.approx(-1 / 3), 8 / 9),
        (3, 0, 2, 1, 0.25, third, 0.5, phi, lift),
        (3, 0, 3, 0, 0.0, 0.0, None, None, None),
        (3, 1, 2, 1, 0.25, third, 0.5, phi, lift),
        (3, 1, 3, 0, 0.0, 0.0, None, None, None),
        (3, 2, 3, 0, 0.0, 0.0, None, None, None),
    ]


def test_neighbours_by_hand(make_lake, request_of, take):
    """Choices (0, 1, 2) and (1, 0, 2): neighbours are 0-1 twice, 1-2 and 0-2 once; k = 3."""
    tokens = [{3: {0: 0.5, 1: 0.3, 2: 0.2}}, {3: {0: 0.3, 1: 0.5, 2: 0.2}}]
    lake = make_lake([request_of("q", "law", tokens)], num_experts=4, top_k=3)
    assert take(lake, "co_activation_adjacent").rows() == [
        (3, 0, 1, 2, 1.0, 1.0),
        (3, 0, 2, 1, 0.5, 0.5),
        (3, 0, 3, 0, 0.0, None),
        (3, 1, 2, 1, 0.5, 0.5),
        (3, 1, 3, 0, 0.0, None),
        (3, 2, 3, 0, 0.0, None),
    ]


def chosen(ids):
    """0/1 table, [tokens, experts]."""
    return (ids[:, :, None] == np.arange(NUM_EXPERTS)).any(axis=1).astype(float)


@pytest.mark.parametrize("tokens", ["all", "generated"])
def test_beside_numpy(made, take, tokens):
    """Phi is NumPy's correlation coefficient of 0/1 columns; pairs are i < j, all of them."""
    lake, requests = made
    found = take(lake, "co_activation", tokens=tokens)
    i, j = np.triu_indices(NUM_EXPERTS, 1)
    for layer, ids in arrays_of(requests, tokens).ids.items():
        mask = chosen(ids)
        both, alone = (mask.T @ mask)[i, j], mask.sum(axis=0)
        rows = found.filter(layer_id=layer)
        assert rows["expert_id"].to_list() == i.tolist()
        assert rows["second_expert_id"].to_list() == j.tolist()
        with np.errstate(invalid="ignore", divide="ignore"):
            wanted = {
                "num_tokens": both,
                "joint_share": both / len(mask),
                "share_given_expert": both / alone[i],
                "share_given_second": both / alone[j],
                "phi": np.corrcoef(mask.T)[i, j],
                "lift": both * len(mask) / (alone[i] * alone[j]),
            }
        for name, values in wanted.items():
            seen = rows[name].cast(float).fill_null(np.nan)
            np.testing.assert_allclose(seen, values, rtol=1e-9, atol=1e-12, err_msg=name)


def test_neighbours_beside_numpy(make_lake, request_of, take):
    """K = 4 of 8, two layers: counts of neighbouring ranks, in a loop over tokens."""
    rng = np.random.default_rng(5)
    table = {layer: np.array([rng.permutation(8)[:4] for _ in range(60)]) for layer in (0, 3)}
    weights = [0.4, 0.3, 0.2, 0.1]
    tokens = [
        {layer: dict(zip(ids[t].tolist(), weights, strict=True)) for layer, ids in table.items()}
        for t in range(60)
    ]
    lake = make_lake([request_of("q", "law", tokens)], top_k=4)
    found = take(lake, "co_activation_adjacent")
    every = take(lake, "co_activation")
    for layer, ids in table.items():
        pairs = np.zeros((8, 8))
        for row in ids:
            for one, two in itertools.pairwise(row):
                pairs[min(one, two), max(one, two)] += 1
        i, j = np.triu_indices(8, 1)
        alone = np.bincount(ids.ravel(), minlength=8)
        rows = found.filter(layer_id=layer)
        assert rows["num_tokens"].to_list() == pairs[i, j].tolist()
        np.testing.assert_allclose(rows["share_given_expert"], pairs[i, j] / alone[i])
        np.testing.assert_allclose(rows["share_given_second"], pairs[i, j] / alone[j])
        mask = (ids[:, :, None] == np.arange(8)).any(axis=1).astype(int)
        all_pairs = every.filter(layer_id=layer)["num_tokens"]
        assert all_pairs.to_list() == (mask.T @ mask)[i, j].tolist()
        assert rows["num_tokens"].sum() == 60 * 3
        assert all_pairs.sum() == 60 * 6


def lake_of_pairs(make_lake, request_of, choose, folder="lake"):
    """120 tokens of one request and layer, k = 2 of 4; ``choose(rng, t)`` gives the choices."""
    rng = np.random.default_rng(2)
    tokens = [{0: dict(zip(choose(rng, t), (0.6, 0.4), strict=True))} for t in range(120)]
    return make_lake([request_of("q", "law", tokens)], num_experts=4, folder=folder)


def test_even_experts_have_the_closed_form_as_chance(make_lake, request_of, take):
    """0 goes with 1, 2 with 3, each 60 times: chance is 4 * 1 / (2 * 3) = 2/3, and phi -1/3."""
    lake = lake_of_pairs(make_lake, request_of, lambda _, t: [(0, 1), (2, 3)][t % 2])
    found = take(lake, "co_activation", draws=29)
    assert found["lift"].to_list() == [2.0, 0.0, 0.0, 0.0, 0.0, 2.0]
    np.testing.assert_allclose(found["lift_chance"], 2 / 3, atol=0.04)
    np.testing.assert_allclose(found["phi_chance"], -1 / 3, atol=0.04)
    np.testing.assert_allclose(found["share_given_expert_chance"], 1 / 3, atol=0.03)
    assert (found["lift_p_adjusted"] <= 1 / 30).all()
    # Mean of all pairs of a draw: pairs and loads are fixed, so it is exact.
    assert found["lift_chance"].mean() == pytest.approx(2 / 3, abs=1e-12)


def test_chance_choices_are_told_from_planted_pairs(make_lake, request_of, take):
    """Evenly drawn pairs lie within the band; lift below 1 for a pair is nothing."""
    lake = lake_of_pairs(
        make_lake, request_of, lambda rng, _: sorted(rng.permutation(4)[:2].tolist())
    )
    found = take(lake, "co_activation", draws=29)
    assert (found["phi_p_adjusted"] > 0.05).all()
    assert found["lift"].min() < 1


def test_neighbours_have_their_share_of_pairs_as_chance(make_lake, request_of, take):
    """K = 3 of 4, evenly: two of three pairs are neighbours, and N_ij / N_i is 2/3: 4/9."""
    rng = np.random.default_rng(1)
    tokens = [
        {0: dict(zip(rng.permutation(4)[:3].tolist(), (0.5, 0.3, 0.2), strict=True))}
        for _ in range(300)
    ]
    lake = make_lake([request_of("q", "law", tokens)], num_experts=4, top_k=3)
    found = take(lake, "co_activation_adjacent", draws=29)
    np.testing.assert_allclose(found["share_given_expert_chance"], 4 / 9, atol=0.05)
    assert (found["share_given_expert_p_adjusted"] > 0.03).all()
