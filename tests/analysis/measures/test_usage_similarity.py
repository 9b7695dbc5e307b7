"""usage_similarity: by hand, beside NumPy over pairs, exchanged domains, and drawn copies."""

import math
from itertools import combinations

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, arrays_of, usage_of


def test_by_hand(make_lake, request_of, take):
    """Choices of experts 0 to 3: a (2, 1, 1, 0), b (1, 1, 0, 0), both law; c (0, 0, 1, 1), art.

    Cosines ab 3 / sqrt(12), ac 1 / sqrt(12), bc 0: within is ab, between the mean of the others.
    """
    lake = make_lake(
        [
            request_of("a", "law", [{3: {0: 0.6, 1: 0.4}}, {3: {0: 0.6, 2: 0.4}}]),
            request_of("b", "law", [{3: {0: 0.6, 1: 0.4}}]),
            request_of("c", "art", [{3: {2: 0.6, 3: 0.4}}]),
        ],
        num_experts=4,
    )
    root = math.sqrt(12)
    (row,) = take(lake, "usage_similarity").rows()
    assert row == pytest.approx((3, 3, 3 / root, 0.5 / root, 2.5 / root, 4 / 3 / root))


def test_one_request_of_each_domain_has_no_pair_within(make_lake, request_of, take):
    tokens = [{3: {0: 0.6, 1: 0.4}}]
    lake = make_lake([request_of("a", "law", tokens), request_of("b", "art", tokens)])
    (row,) = take(lake, "usage_similarity").rows()
    assert row == (3, 2, None, pytest.approx(1), None, pytest.approx(1))


def pairwise(usage, domain, origin):
    """(requests, within, between, difference, of all pairs) by layer, pair by pair."""
    rows = []
    for layer in LAYERS:
        sums = {True: [], False: []}
        for one, two in combinations(range(len(domain)), 2):
            if origin[one] != origin[two]:
                left, right = usage.counts[layer][one], usage.counts[layer][two]
                cosine = left @ right / math.sqrt((left @ left) * (right @ right))
                sums[domain[one] == domain[two]].append(cosine)
        within, between = np.mean(sums[True]), np.mean(sums[False])
        every = np.mean(sums[True] + sums[False])
        rows.append((len(domain), within, between, within - between, every))
    return np.array(rows)


@pytest.mark.parametrize("tokens", ["all", "generated"])
def test_beside_numpy(made, take, tokens):
    lake, requests = made
    usage = usage_of(arrays_of(requests, tokens))
    found = take(lake, "usage_similarity", tokens=tokens).drop("layer_id").to_numpy()
    np.testing.assert_allclose(found, pairwise(usage, usage.domain, usage.request), atol=1e-12)


def test_exchanged_domains_bring_both_means_to_that_of_all_pairs(planted, take):
    """Within a few standard errors of the closed form; the plant's difference is beyond chance."""
    lake, requests = planted
    found = take(lake, "usage_similarity", draws=29)
    usage = usage_of(arrays_of(requests))
    rng = np.random.default_rng(0)
    simulated = [
        pairwise(usage, rng.permutation(usage.domain), usage.request)[:, 1:3] for _ in range(60)
    ]
    error = 4 * np.std(simulated, axis=0) / math.sqrt(29)
    for column, name in enumerate(("within_similarity", "between_similarity")):
        off = np.abs(found[f"{name}_chance"] - found["similarity_closed_form"])
        assert (off.to_numpy() <= error[:, column]).all()
    assert (found["difference_p_adjusted"] <= 1 / 30 + 1e-9).all()
    assert (found["difference"] > found["difference_chance_high"]).all()


def test_copies_of_a_request_are_no_pair(planted, take, copied):
    """Pairs of equal origin are left out in NumPy too. The interval of one draw is its value."""
    lake, requests = planted
    usage = usage_of(arrays_of(requests))
    some = usage.some(copied(usage.domain))
    found = take(lake, "usage_similarity", draws=1)
    expected = pairwise(some, some.domain, some.request)
    names = ("within_similarity_low", "between_similarity_low", "difference_low")
    np.testing.assert_allclose(found.select(names).to_numpy(), expected[:, 1:4], atol=1e-12)
