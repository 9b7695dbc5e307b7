"""expert_domain_correlation: by hand, beside NumPy, and against exchanged domains."""

import math

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, NUM_EXPERTS, SIZES, arrays_of, usage_of


def test_by_hand(make_lake, request_of, take):
    """Law: a chooses {0, 1}, b {0, 1} and {0, 2}; art: c {0, 2}. Shares of expert 1: 1/2, 1/4, 0.

    Their mean is 1/4, their mean square distance 1/24; inside law the mean is 3/8, outside 0. So
    3/8 sqrt(2) / 3 sqrt(24) = sqrt(3) / 2. Expert 2 has 0, 1/4, 1/2: the opposite. All use expert 0
    alike, none expert 3.
    """
    requests = [
        request_of("a", "law", [{3: {0: 0.6, 1: 0.4}}]),
        request_of("b", "law", [{3: {0: 0.6, 1: 0.4}}, {3: {0: 0.6, 2: 0.4}}]),
        request_of("c", "art", [{3: {0: 0.6, 2: 0.4}}]),
    ]
    high = pytest.approx(math.sqrt(3) / 2)
    low = pytest.approx(-math.sqrt(3) / 2)
    assert take(make_lake(requests, num_experts=4), "expert_domain_correlation").rows() == [
        ("art", 3, 0, 1, 0.5, 0.5, None),
        ("art", 3, 1, 1, 0.0, 0.375, low),
        ("art", 3, 2, 1, 0.5, 0.125, high),
        ("art", 3, 3, 1, 0.0, 0.0, None),
        ("law", 3, 0, 2, 0.5, 0.5, None),
        ("law", 3, 1, 2, 0.375, 0.0, high),
        ("law", 3, 2, 2, 0.125, 0.5, low),
        ("law", 3, 3, 2, 0.0, 0.0, None),
    ]


def test_one_domain_goes_with_nothing(make_lake, request_of, take):
    requests = [request_of(f"q{n}", "law", [{3: {n: 0.6, n + 1: 0.4}}]) for n in range(3)]
    found = take(make_lake(requests, num_experts=4), "expert_domain_correlation")
    assert found["share_outside"].to_list() == found["correlation"].to_list() == [None] * 4


@pytest.mark.parametrize("tokens", ["all", "prompt", "generated"])
def test_beside_numpy(made, take, tokens):
    lake, requests = made
    usage = usage_of(arrays_of(requests, tokens))
    found = take(lake, "expert_domain_correlation", tokens=tokens)
    expected = []
    for domain in sorted(SIZES):
        inside = usage.domain == domain
        for layer in LAYERS:
            share = usage.counts[layer] / usage.counts[layer].sum(1, keepdims=True)
            for column in share.T:
                varies = column.std() > 1e-9
                value = np.corrcoef(column, inside)[0, 1] if varies else np.nan
                expected.append(
                    (inside.sum(), column[inside].mean(), column[~inside].mean(), value)
                )
    names = ("num_requests", "share_inside", "share_outside", "correlation")
    columns = found.select(names).cast(float).fill_null(np.nan).to_numpy()
    np.testing.assert_allclose(columns, expected, rtol=0, atol=1e-10)
    assert found["expert_id"].to_list() == list(range(NUM_EXPERTS)) * len(SIZES) * len(LAYERS)


def test_exchanged_domains_correlate_with_nothing(planted, take):
    """Chance has mean 0 and standard deviation 1 / sqrt(requests - 1); the plant is beyond it."""
    lake, requests = planted
    draws = 39
    found = take(lake, "expert_domain_correlation", draws=draws)
    chance = found["correlation_chance"].drop_nans().to_numpy()
    error = 1 / math.sqrt(len(requests) - 1) / math.sqrt(draws)
    assert len(chance) > 40
    assert (np.abs(chance) <= 4 * error).all()
    assert np.std(chance) == pytest.approx(error, rel=0.35)
    for domain, own in (("law", 1), ("math", 2)):
        rows = found.filter(domain=domain, expert_id=own)
        assert (rows["correlation"] > rows["correlation_chance_high"]).all()
        assert (rows["correlation_p_adjusted"] <= 0.05).all()
    never = found.filter(expert_id=7)
    assert never["correlation"].to_list() == [None] * never.height
