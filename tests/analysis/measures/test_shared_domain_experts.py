"""shared_domain_experts: by hand, beside NumPy, and what chance it has."""

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
    """Law chooses {0, 1} twice, art {0, 2}, pop {2, 3}: each domain is served by its two.

    Art and law share 0 of 3, art and pop 2 of 3, law and pop nothing; 2 * 2 / 4 by chance."""
    lake = make_lake(
        [
            request_of("a", "law", [{3: {0: 0.6, 1: 0.4}}] * 2),
            request_of("b", "art", [{3: {0: 0.6, 2: 0.4}}]),
            request_of("c", "pop", [{3: {2: 0.6, 3: 0.4}}]),
        ],
        num_experts=4,
    )
    assert take(lake, "shared_domain_experts").rows() == [
        ("art", "law", 3, 2, 2, 1, 1.0, pytest.approx(1 / 3)),
        ("art", "pop", 3, 2, 2, 1, 1.0, pytest.approx(1 / 3)),
        ("law", "pop", 3, 2, 2, 0, 1.0, 0.0),
    ]


def sets(usage, domain, share=0.6):
    """Whether an expert serves a domain: bool [layers, domains, experts]."""
    names = np.unique(domain)
    sums = np.array(
        [[usage.counts[layer][domain == name].sum(0) for name in names] for layer in LAYERS]
    )
    return sums >= share * sums.max(-1, keepdims=True)


def shared(served):
    """Experts that serve both, [pairs, layers] of sets [layers, domains, experts]."""
    pairs = combinations(range(served.shape[1]), 2)
    return np.array([(served[:, one] & served[:, two]).sum(-1) for one, two in pairs])


@pytest.mark.parametrize("tokens", ["all", "generated"])
def test_beside_numpy(made, take, tokens):
    lake, requests = made
    usage = usage_of(arrays_of(requests, tokens))
    found = take(lake, "shared_domain_experts", tokens=tokens)
    served = sets(usage, usage.domain)
    names = np.unique(usage.domain).tolist()
    keys = [(*pair, layer) for pair in combinations(names, 2) for layer in LAYERS]
    assert found.select("domain", "other_domain", "layer_id").rows() == keys
    assert found["num_shared"].to_list() == shared(served).ravel().tolist()
    either = [(served[:, a] | served[:, b]).sum(-1) for a, b in combinations(range(len(names)), 2)]
    np.testing.assert_allclose(found["overlap"], (shared(served) / either).ravel(), atol=1e-12)


def test_closed_form_is_the_mean_of_random_sets(made, take):
    """Sets of the same sizes, of experts renamed 2,000 times in each domain and layer."""
    lake, requests = made
    usage = usage_of(arrays_of(requests))
    found = take(lake, "shared_domain_experts")
    rng = np.random.default_rng(0)
    served = sets(usage, usage.domain)
    simulated = np.array([shared(rng.permuted(served, axis=-1)).ravel() for _ in range(2000)])
    error = simulated.std(0) / np.sqrt(2000)
    off = np.abs(found["num_shared_closed_form"] - simulated.mean(0))
    assert (off <= 4 * error + 1e-12).all()
    assert served.shape[-1] == NUM_EXPERTS


def test_mean_by_chance_is_that_of_exchanged_domains(planted, take):
    """And domains of one text share more than law and math do, which have experts of their own."""
    lake, requests = planted
    usage = usage_of(arrays_of(requests))
    found = take(lake, "shared_domain_experts", draws=29)
    rng = np.random.default_rng(0)
    simulated = [
        shared(sets(usage, rng.permutation(usage.domain))).ravel().astype(float) for _ in range(500)
    ]
    assert_mean_of(found["num_shared_chance"], np.array(simulated), 29)
    apart = found.filter(domain="law", other_domain="math")
    assert (apart["overlap"] < apart["overlap_chance"]).all()
