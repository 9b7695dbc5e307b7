"""token_similarity: by hand, beside every pair in NumPy, and its chance level."""

import itertools

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, NUM_EXPERTS, TOP_K, arrays_of


def token(first, second):
    return {3: {first: 0.6, second: 0.4}}


def test_by_hand(make_lake, request_of, take):
    """Law: q {0, 1}, {0, 2}; r {0, 1}. Art: s {2, 3}.

    Within q: 1/2. Within law, q with r: 1 and 1/2. Across: 0, 1/2 and 0. k / E = 1/4.
    """
    q = request_of("q", "law", [token(0, 1), token(0, 2)])
    r, s = request_of("r", "law", [token(0, 1)]), request_of("s", "art", [token(2, 3)])
    sixth = pytest.approx(1 / 6)
    assert take(make_lake([q, r, s]), "token_similarity").rows() == [
        (3, 0.5, 0.75, sixth, pytest.approx(7 / 12), 0.25, 1, 2, 3)
    ]


def test_where_there_is_no_pair_there_is_no_mean(make_lake, request_of, take):
    lake = make_lake([request_of("q", "law", [token(0, 1)])])
    assert take(lake, "token_similarity").rows() == [(3, *[None] * 4, 0.25, 0, 0, 0)]


def of_pairs(choices, ids):
    """Means of overlap in one request, one domain, two domains, and their pairs, one by one."""
    kinds = {"request": [], "domain": [], "across": []}
    for t, u in itertools.combinations(range(len(ids)), 2):
        overlap = len(set(ids[t]) & set(ids[u])) / TOP_K
        if choices.request[t] == choices.request[u]:
            kinds["request"].append(overlap)
        else:
            same = choices.domain[t] == choices.domain[u]
            kinds["domain" if same else "across"].append(overlap)
    request, domain, across = (np.mean(found) if found else np.nan for found in kinds.values())
    return [request, domain, across, domain - across, *map(len, kinds.values())]


@pytest.mark.parametrize("tokens", ["all", "generated", "last-prompt"])
def test_beside_numpy(made, take, tokens):
    lake, requests = made
    choices = arrays_of(requests, tokens)
    found = take(lake, "token_similarity", tokens=tokens)
    assert found["layer_id"].to_list() == list(LAYERS)
    wanted = [of_pairs(choices, ids) for ids in choices.ids.values()]
    values = found.drop("layer_id", "closed_form").cast(float).to_numpy()
    np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-12)


def lake_of(make_lake, request_of, choose):
    """Eight requests of each of two domains, six tokens each."""
    rng = np.random.default_rng(6)
    requests = [
        request_of(f"q{i}", ("art", "law")[i % 2], [token(*choose(rng, i % 2)) for _ in range(6)])
        for i in range(16)
    ]
    return make_lake(requests), arrays_of(requests)


def test_domains_that_choose_are_told_from_chance(make_lake, request_of, take):
    """Expert 0 for art and 1 for law, and any of six others: 1/2 + 1/12 and 1/12.

    With domains exchanged, both come to the mean of all pairs of two requests.
    """
    lake, choices = lake_of(make_lake, request_of, lambda rng, one: (one, rng.integers(2, 8)))
    (row,) = take(lake, "token_similarity", draws=29).to_dicts()
    assert row["within_domain"] == pytest.approx(0.5 + 1 / 12, abs=0.02)
    assert row["across_domains"] == pytest.approx(1 / 12, abs=0.02)
    assert row["difference_p"] == 2 / 30
    _, domain, across, _, _, pairs, other_pairs = of_pairs(choices, choices.ids[3])
    mean = (domain * pairs + across * other_pairs) / (pairs + other_pairs)
    assert row["within_domain_chance"] == pytest.approx(mean, abs=0.03)
    assert row["across_domains_chance"] == pytest.approx(mean, abs=0.03)
    assert row["within_request_chance"] == pytest.approx(row["within_request"], abs=1e-12)


def test_even_choices_overlap_as_the_closed_form_says(make_lake, request_of, take):
    lake, _ = lake_of(
        make_lake, request_of, lambda rng, _: rng.permutation(NUM_EXPERTS)[:TOP_K].tolist()
    )
    (row,) = take(lake, "token_similarity", draws=19).to_dicts()
    assert row["closed_form"] == 0.25
    for value in ("within_domain", "across_domains"):
        assert row[f"{value}_chance"] == pytest.approx(0.25, abs=0.02)
    assert row["difference_p"] > 0.1
