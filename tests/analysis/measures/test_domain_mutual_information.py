"""domain_mutual_information: by hand, beside NumPy, and against exchanged domains."""

import math

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, arrays_of, assert_mean_of, usage_of


def information(table):
    """(H(E), H(D), I(E; D)) of counts [experts, domains], I as H(E) + H(D) - H(E, D)."""

    def entropy(counts):
        share = counts[counts > 0] / counts.sum()
        return -(share * np.log(share)).sum()

    expert, domain = entropy(table.sum(1)), entropy(table.sum(0))
    return expert, domain, expert + domain - entropy(table.ravel())


def test_by_hand(make_lake, request_of, take):
    """Layer 3: law takes {0, 1}, art {2, 3}: the expert tells the domain, I = H(D) = ln 2.

    Layer 4: both take {0, 1}: nothing is told."""
    law = [{3: {0: 0.6, 1: 0.4}, 4: {0: 0.6, 1: 0.4}}]
    art = [{3: {2: 0.6, 3: 0.4}, 4: {0: 0.6, 1: 0.4}}]
    lake = make_lake([request_of("a", "law", law), request_of("b", "art", art)], num_experts=4)
    two = pytest.approx(math.log(2))
    assert take(lake, "domain_mutual_information").rows() == [
        (3, 4, pytest.approx(math.log(4)), two, two, pytest.approx(1)),
        (4, 4, two, two, pytest.approx(0, abs=1e-15), pytest.approx(0, abs=1e-15)),
    ]


def test_one_domain_has_nothing_to_be_told(make_lake, request_of, take):
    lake = make_lake([request_of("a", "law", [{3: {0: 0.6, 1: 0.4}}])])
    (row,) = take(lake, "domain_mutual_information").rows()
    assert row == (3, 2, pytest.approx(math.log(2)), 0.0, 0.0, None)


def tables(usage, domain):
    names = sorted(set(domain))
    return {
        layer: np.stack([counts[domain == name].sum(0) for name in names], axis=1)
        for layer, counts in usage.counts.items()
    }


@pytest.mark.parametrize("tokens", ["all", "generated"])
def test_beside_numpy(made, take, tokens):
    lake, requests = made
    usage = usage_of(arrays_of(requests, tokens))
    found = take(lake, "domain_mutual_information", tokens=tokens)
    expected = []
    for layer, table in tables(usage, usage.domain).items():
        expert, domain, shared = information(table)
        expected.append((layer, table.sum(), expert, domain, shared, shared / min(expert, domain)))
    np.testing.assert_allclose(found.to_numpy(), expected, rtol=0, atol=1e-12)


def test_exchanged_domains_leave_what_few_choices_have_by_chance(made, take, request):
    """The mean by chance is that of 500 exchanges in NumPy. Only the plant is above it."""
    lake, requests = made
    usage = usage_of(arrays_of(requests))
    found = take(lake, "domain_mutual_information", draws=29)
    rng = np.random.default_rng(0)
    simulated = []
    for _ in range(500):
        drawn = tables(usage, rng.permutation(usage.domain))
        simulated.append([information(drawn[layer])[2] for layer in LAYERS])
    assert_mean_of(found["mutual_information_chance"], np.array(simulated), 29)
    if "planted" in request.node.name:
        assert (found["mutual_information_p_adjusted"] <= 1 / 30 + 1e-9).all()
        assert (found["mutual_information"] > 2 * found["mutual_information_chance"]).all()
    else:
        assert (found["mutual_information_p_adjusted"] > 0.05).all()
