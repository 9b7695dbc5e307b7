"""mass_ranks and mass_centrality: by hand, and beside NumPy on a planted and a random run."""

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, NUM_EXPERTS, arrays_of

HALF = 2**-0.5


def test_by_hand(make_lake, request_of, take):
    """Four tokens choose {0, 1}, {0, 1}, {0, 2}, {2, 3}: shares 3/4, 1/2, 1/2, 1/4.

    Positive phi: 0 and 1, (1/2 - 3/8) / (sqrt(3) / 8) = 1 / sqrt(3), and 2 and 3, as much.
    0 and 2 lie 1/8 below. Masses: (.6 + .6 + .9) / 4, .8 / 4, (.1 + .5) / 4, .5 / 4; all ties
    are equal, so nothing is correlated.
    """
    chosen = [{0: 0.6, 1: 0.4}, {0: 0.6, 1: 0.4}, {0: 0.9, 2: 0.1}, {2: 0.5, 3: 0.5}]
    lake = make_lake([request_of("q", "law", [{3: token} for token in chosen])], num_experts=4)
    tie = pytest.approx(3**-0.5)
    assert take(lake, "mass_ranks").rows() == [
        (3, 0, pytest.approx(0.525), 1, 1, tie, 1),
        (3, 1, pytest.approx(0.2), 2, 1, tie, 2),
        (3, 2, pytest.approx(0.15), 3, 1, tie, 3),
        (3, 3, pytest.approx(0.125), 4, 1, tie, 4),
    ]
    assert take(lake, "mass_centrality").rows() == [(3, 4, 2, None)]


def test_correlation_by_hand(make_lake, request_of, take):
    """{0, 1} three times and {2, 3} once, and expert 4 unused: ties 1, 1, 1, 1, 0 and its mass is
    least. Mass ranks 5, 4, 3, 2, 1 and tie ranks 3.5 (four times), 1: covariance 1, variances 2
    and 1: 1 / sqrt(2).
    """
    chosen = [{0: 0.6, 1: 0.4}] * 3 + [{2: 0.6, 3: 0.4}]
    lake = make_lake([request_of("q", "law", [{3: token} for token in chosen])], num_experts=5)
    ((layer, number, ties, spearman),) = take(lake, "mass_centrality").rows()
    assert (layer, number, ties) == (3, 5, 2)
    assert spearman == pytest.approx(HALF)


def wanted(choices, layer):
    """Mass, and from the phi matrix the number and the sum of positive ones."""
    ids, weights = choices.ids[layer], choices.weights[layer]
    held = (ids[:, :, None] == np.arange(NUM_EXPERTS)).any(axis=1)
    mass = np.bincount(ids.ravel(), weights.ravel(), NUM_EXPERTS) / len(ids)
    varies = held.any(axis=0) & ~held.all(axis=0)
    phi = np.zeros((NUM_EXPERTS, NUM_EXPERTS))
    phi[np.ix_(varies, varies)] = np.corrcoef(held[:, varies].T.astype(float))
    np.fill_diagonal(phi, 0)
    return mass, (phi > 1e-12).sum(axis=1), np.where(phi > 1e-12, phi, 0).sum(axis=1)


def mean_ranks(values):
    below = (values[:, None] > values).sum(axis=1)
    return below + ((values[:, None] == values).sum(axis=1) + 1) / 2


@pytest.mark.parametrize("tokens", ["all", "prompt"])
def test_beside_numpy(made, take, tokens):
    lake, requests = made
    choices = arrays_of(requests, tokens)
    found, layers = (take(lake, name, tokens=tokens) for name in ("mass_ranks", "mass_centrality"))
    for layer in LAYERS:
        mass, degree, centrality = wanted(choices, layer)
        rows = found.filter(layer_id=layer)
        assert rows["mass_rank"].to_list() == list(range(1, NUM_EXPERTS + 1))
        assert rows["expert_id"].to_list() == np.argsort(-mass, kind="stable").tolist()
        rows = rows.sort("expert_id")
        np.testing.assert_allclose(rows["mass"], mass, atol=1e-12)
        np.testing.assert_array_equal(rows["degree"], degree)
        np.testing.assert_allclose(rows["centrality"], centrality, atol=1e-10)
        row = layers.filter(layer_id=layer).row(0, named=True)
        assert (row["num_experts"], row["num_ties"]) == (NUM_EXPERTS, degree.sum() // 2)
        ranks = mean_ranks(mass), mean_ranks(np.round(centrality, 12))
        assert row["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-9)


def test_ties_are_told_from_chance(make_lake, request_of, take):
    """Experts 4 to 7 come in fixed pairs, 0 to 3 in any; all loads are alike, so mass is blind."""
    rng = np.random.default_rng(1)
    requests = []
    for number in range(10):
        tokens = []
        for _ in range(16):
            pair = [(4, 5), (6, 7)][int(rng.integers(2))]
            ids = pair if rng.random() < 0.5 else rng.permutation(4)[:2].tolist()
            tokens.append({3: {ids[0]: 0.5, ids[1]: 0.5}})
        requests.append(request_of(f"q{number}", "law", tokens))
    lake = make_lake(requests)
    found = take(lake, "mass_ranks", draws=19).sort("expert_id")
    assert (found["centrality"][4:] > found["centrality_chance_high"][4:]).all()
    assert (found["centrality_p_adjusted"][4:] <= 0.05).all()
    simulated = []
    for _ in range(100):  # even routing has nearly these loads
        ids = np.argsort(rng.random((160, NUM_EXPERTS)), axis=1)[:, :2]
        held = (ids[:, :, None] == np.arange(NUM_EXPERTS)).any(axis=1)
        phi = np.corrcoef(held.T.astype(float)) - np.eye(NUM_EXPERTS)
        simulated.append(np.where(phi > 0, phi, 0).sum(axis=1).mean())
    chance = found["centrality_chance"].mean()
    assert chance == pytest.approx(np.mean(simulated), abs=0.04)
    layer = take(lake, "mass_centrality", draws=9)
    assert layer["num_ties"].item() == 8  # the six pairs of 0 to 3, and two
    assert layer["num_ties"].item() > layer["num_ties_chance_high"].item()


def test_swaps_keep_mass(made, take):
    """Mass is of recorded usage, so its Spearman correlation varies by the ties alone."""
    found = take(made[0], "mass_centrality", draws=9)
    assert found["spearman_chance"].is_between(-1, 1).all()
    assert found["spearman"].is_between(-1, 1).all()
