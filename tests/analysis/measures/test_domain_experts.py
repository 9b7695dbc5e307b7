"""domain_experts: by hand, beside NumPy, and against exchanged domains."""

import numpy as np
import pytest

from tests.analysis.measures.conftest import (
    LAYERS,
    NUM_EXPERTS,
    SIZES,
    arrays_of,
    assert_mean_of,
    usage_of,
)


def test_by_hand(make_lake, request_of, take):
    """Law's choices of experts 0 to 3: 5, 3, 2, 0; art's: 1, 0, 0, 1. 0.6 of the most is 3 and 0.6.

    So 0 serves both, 1 law (3 is just enough) and 3 art. With 0.5 nothing changes; 0.4
    takes in expert 2 for law.
    """
    pairs = [(0, 1), (0, 1), (0, 1), (0, 2), (0, 2)]
    law = [{3: {one: 0.6, two: 0.4}} for one, two in pairs]
    art = [{3: {0: 0.6, 3: 0.4}}]
    lake = make_lake([request_of("a", "law", law), request_of("b", "art", art)], num_experts=4)
    found = take(lake, "domain_experts")
    assert found.rows() == [
        (3, 0, 2, 1.0, 1.0),
        (3, 1, 1, 0.5, pytest.approx(0.6)),
        (3, 2, 0, 0.0, 0.4),
        (3, 3, 1, 0.5, 1.0),
    ]
    assert take(lake, "domain_experts", share_of_max=0.5).equals(found)
    assert take(lake, "domain_experts", share_of_max=0.4)["num_domains"].to_list() == [2, 1, 1, 1]


def values(usage, domain, share):
    """(domains served, largest use over the most used expert's) by layer and expert."""
    served, most = [], []
    for layer in LAYERS:
        sums = np.array([usage.counts[layer][domain == name].sum(0) for name in np.unique(domain)])
        served.append((sums >= share * sums.max(1, keepdims=True)).sum(0))
        most.append((sums / sums.max(1, keepdims=True)).max(0))
    return np.ravel(served), np.ravel(most)


@pytest.mark.parametrize("tokens", ["all", "last-prompt"])
@pytest.mark.parametrize("share", [0.6, 1])
def test_beside_numpy(made, take, tokens, share):
    lake, requests = made
    usage = usage_of(arrays_of(requests, tokens))
    found = take(lake, "domain_experts", tokens=tokens, share_of_max=share)
    assert found["expert_id"].to_list() == list(range(NUM_EXPERTS)) * len(LAYERS)
    served, most = values(usage, usage.domain, share)
    assert found["num_domains"].to_list() == served.tolist()
    np.testing.assert_allclose(found["share_of_domains"], served / len(SIZES), atol=1e-12)
    np.testing.assert_allclose(found["usage_of_max"], most, atol=1e-12)


def test_the_committee_serves_all_domains_whatever_their_requests(planted, take):
    """Expert 0 serves all three, exchanged or not; the means by chance are those of NumPy."""
    lake, requests = planted
    usage = usage_of(arrays_of(requests))
    found = take(lake, "domain_experts", draws=29)
    rng = np.random.default_rng(0)
    simulated = np.array(
        [values(usage, rng.permutation(usage.domain), 0.6) for _ in range(500)], dtype=float
    )
    assert_mean_of(found["num_domains_chance"], simulated[:, 0], 29)
    assert_mean_of(found["usage_of_max_chance"], simulated[:, 1], 29)
    committee = found.filter(expert_id=0)
    assert committee["num_domains"].to_list() == [3, 3, 3]
    assert (committee["num_domains_p_adjusted"] > 0.05).all()
    own = found.filter(expert_id=1)  # law's, mixed into all domains by exchange
    assert (own["num_domains"] <= own["num_domains_chance"]).all()
