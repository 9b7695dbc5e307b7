"""top_p_overlap: by hand, beside NumPy over pairs, exchanged domains, and drawn copies."""

import math
from itertools import combinations

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, arrays_of, usage_of


def test_by_hand(make_lake, request_of, take):
    """Choices of experts 0 to 3: a (2, 1, 1, 0), b (1, 1, 0, 0), both law; c (0, 0, 1, 1), art.

    More than 1/2: a {0, 1}, as 2 of 4 are not more; b and c both of theirs. ab 1, ac and bc 0.
    More than 3/4: a {0, 1, 2}, so ab 2/3 and ac 1/4. More than 0.49: one expert each.
    """
    lake = make_lake(
        [
            request_of("a", "law", [{3: {0: 0.6, 1: 0.4}}, {3: {0: 0.6, 2: 0.4}}]),
            request_of("b", "law", [{3: {0: 0.6, 1: 0.4}}]),
            request_of("c", "art", [{3: {2: 0.6, 3: 0.4}}]),
        ],
        num_experts=4,
    )
    third = pytest.approx(1 / 3)
    assert take(lake, "top_p_overlap", top_p=0.5).rows() == [(3, 3, 2.0, 1.0, 0.0, 1.0, third)]
    (row,) = take(lake, "top_p_overlap").rows()
    assert row == pytest.approx((3, 3, 7 / 3, 2 / 3, 1 / 8, 2 / 3 - 1 / 8, 11 / 36))
    assert take(lake, "top_p_overlap", top_p=0.75).rows() == [row]
    assert take(lake, "top_p_overlap", top_p=0.49)["set_size"].item() == 1


def most_used(counts, top_p):
    """Smallest set, most used first, that takes more than top_p."""
    members = set()
    for expert in sorted(np.flatnonzero(counts), key=lambda expert: (-counts[expert], expert)):
        members.add(int(expert))
        if counts[sorted(members)].sum() > top_p * counts.sum():
            break
    return members


def pairwise(usage, domain, top_p=0.8):
    """(requests, set size, within, between, difference, of all pairs), pair by pair."""
    rows = []
    for layer in LAYERS:
        sets = [most_used(counts, top_p) for counts in usage.counts[layer]]
        sums = {True: [], False: []}
        for one, two in combinations(range(len(domain)), 2):
            if usage.request[one] != usage.request[two]:
                overlap = len(sets[one] & sets[two]) / len(sets[one] | sets[two])
                sums[domain[one] == domain[two]].append(overlap)
        within, between = np.mean(sums[True]), np.mean(sums[False])
        size, every = np.mean([*map(len, sets)]), np.mean(sums[True] + sums[False])
        rows.append((len(domain), size, within, between, within - between, every))
    return np.array(rows)


@pytest.mark.parametrize(("tokens", "top_p"), [("all", 0.8), ("all", 0.3), ("generated", 0.8)])
def test_beside_numpy(made, take, tokens, top_p):
    lake, requests = made
    usage = usage_of(arrays_of(requests, tokens))
    found = take(lake, "top_p_overlap", tokens=tokens, top_p=top_p).drop("layer_id").to_numpy()
    np.testing.assert_allclose(found, pairwise(usage, usage.domain, top_p), atol=1e-12)


def test_exchanged_domains_bring_both_means_to_that_of_all_pairs(planted, take):
    """Within a few standard errors of the closed form; the plant's difference is beyond chance."""
    lake, requests = planted
    found = take(lake, "top_p_overlap", draws=29)
    usage = usage_of(arrays_of(requests))
    rng = np.random.default_rng(0)
    simulated = [pairwise(usage, rng.permutation(usage.domain))[:, 2:4] for _ in range(60)]
    error = 4 * np.std(simulated, axis=0) / math.sqrt(29)
    for column, name in enumerate(("within_overlap", "between_overlap")):
        off = np.abs(found[f"{name}_chance"] - found["overlap_closed_form"])
        assert (off.to_numpy() <= error[:, column]).all()
    assert (found["difference_p_adjusted"] <= 1 / 30 + 1e-9).all()
    assert found["set_size_p"].is_nan().all()  # whatever the domains are called, so not tested


def test_copies_of_a_request_are_no_pair(planted, take, copied):
    """Pairs of equal origin are left out in NumPy too. The interval of one draw is its value."""
    lake, requests = planted
    usage = usage_of(arrays_of(requests))
    some = usage.some(copied(usage.domain))
    found = take(lake, "top_p_overlap", draws=1)
    names = ("set_size_low", "within_overlap_low", "between_overlap_low", "difference_low")
    expected = pairwise(some, some.domain)[:, 1:5]
    np.testing.assert_allclose(found.select(names).to_numpy(), expected, atol=1e-12)
