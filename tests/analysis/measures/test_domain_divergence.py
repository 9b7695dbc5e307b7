"""domain_divergence: by hand, beside NumPy, and against exchanged domains."""

import math
from itertools import combinations

import numpy as np
import pytest

from tests.analysis.measures.conftest import (
    LAYERS,
    NUM_EXPERTS,
    arrays_of,
    assert_mean_of,
    usage_of,
)


def test_by_hand(make_lake, request_of, take):
    """Layer 3: law (1/2, 1/2, 0, 0), art (0, 0, 1/2, 1/2): ln 4 - ln 2, the most there can be.

    Layer 4: law (3/4, 1/4), art (1/4, 3/4): ln 2 - H, over ln 4 - H, H = ln 4 - 3/4 ln 3. Gate
    weights that sum to 1/2 are scaled.
    """
    law = [{3: {0: 0.25, 1: 0.25}, 4: {0: 0.75, 1: 0.25}}]
    art = [{3: {2: 0.25, 3: 0.25}, 4: {0: 0.25, 1: 0.75}}]
    lake = make_lake([request_of("a", "law", law), request_of("b", "art", art)], num_experts=4)
    entropy = math.log(4) - 0.75 * math.log(3)
    apart = math.log(2) - entropy
    assert take(lake, "domain_divergence").rows() == [
        ("art", "law", 3, pytest.approx(math.log(2)), pytest.approx(1)),
        ("art", "law", 4, pytest.approx(apart), pytest.approx(apart / (math.log(4) - entropy))),
    ]


def values(usage, domain):
    """(divergence, normalised) by pair and layer, as mean Kullback-Leibler distances."""
    rows = []
    for one, two in combinations(np.unique(domain), 2):
        for layer in LAYERS:
            sums = [usage.weights[layer][domain == name].sum(0) for name in (one, two)]
            shares = [row / row.sum() for row in sums]
            middle = (shares[0] + shares[1]) / 2
            apart, least = 0.0, math.log(NUM_EXPERTS)
            for share in shares:
                there = share > 0
                apart += (share[there] * np.log(share[there] / middle[there])).sum() / 2
                least += (share[there] * np.log(share[there])).sum() / 2
            rows.append((apart, apart / least))
    return np.array(rows)


@pytest.mark.parametrize("tokens", ["all", "generated", "last-prompt"])
def test_beside_numpy(made, take, tokens):
    lake, requests = made
    usage = usage_of(arrays_of(requests, tokens))
    found = take(lake, "domain_divergence", tokens=tokens)
    pairs = combinations(np.unique(usage.domain).tolist(), 2)
    keys = [(*pair, layer) for pair in pairs for layer in LAYERS]
    assert found.select("domain", "other_domain", "layer_id").rows() == keys
    columns = found.select("divergence", "normalised_divergence").to_numpy()
    np.testing.assert_allclose(columns, values(usage, usage.domain), rtol=0, atol=1e-12)


def test_the_plant_is_farther_apart_than_exchanged_domains(planted, take):
    """The means by chance are those of 500 exchanges of labels in NumPy."""
    lake, requests = planted
    usage = usage_of(arrays_of(requests))
    found = take(lake, "domain_divergence", draws=29)
    rng = np.random.default_rng(0)
    simulated = np.array([values(usage, rng.permutation(usage.domain)) for _ in range(500)])
    assert_mean_of(found["divergence_chance"], simulated[:, :, 0], 29)
    assert_mean_of(found["normalised_divergence_chance"], simulated[:, :, 1], 29)
    apart = found.filter(domain="law", other_domain="math")
    assert (apart["normalised_divergence_p"] <= 2 / 30 + 1e-9).all()
    assert (apart["divergence"] > apart["divergence_chance_high"]).all()
