"""same_token_domain_difference: by hand, beside NumPy, and on plants of both explanations."""

import itertools

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, NUM_EXPERTS, arrays_of


def token(first, second):
    return {3: {first: 0.6, second: 0.4}}


def test_by_hand(make_lake, request_of, take):
    """Art: 50 {0, 1}, 50 {0, 2}, 51 {4, 5}, 53 {6, 7}; law: 50 {0, 1}, 51 {4, 5}; -1 left out.

    Shares of 8 choices: 0 2/8, all others but 3 1/8; of 4: 0, 1, 4, 5 1/4. Differences 0, 1/8,
    1/8, 1/8, 1/8, 1/8, 1/8 of 0, 1, 2, 4, 5, 6, 7: half of their sum is 3/8.
    Lesser shares of tokens: 50 min(2/4, 1/2), 51 min(1/4, 1/2), in sum 3/4: weights 2/3, 1/3.
    Only id 50 differs, by 1/4 each in experts 1 and 2: 2/3 * 1/4 = 1/6.
    """
    art = [token(0, 1), token(0, 2), token(4, 5), token(6, 7)]
    law = [token(0, 1), token(4, 5), token(3, 2)]
    lake = make_lake(
        [
            request_of("a", "art", art, token_ids=[50, 50, 51, 53]),
            request_of("b", "law", law, token_ids=[50, 51, -1]),
        ]
    )
    found = take(lake, "same_token_domain_difference")
    assert found.rows() == [(3, "art", "law", 0.75, 0.375, pytest.approx(1 / 6))]


def test_domains_without_a_common_token(make_lake, request_of, take):
    lake = make_lake(
        [
            request_of("a", "art", [token(0, 1)], token_ids=[5]),
            request_of("b", "law", [token(2, 3)], token_ids=[6]),
        ]
    )
    assert take(lake, "same_token_domain_difference").rows() == [(3, "art", "law", 0, 1, None)]


def differences(choices, ids, one, two):
    """(common, raw, same-token) of two domains in one layer."""
    mask = (ids[:, :, None] == np.arange(NUM_EXPERTS)).any(axis=1) / ids.shape[1]
    first, second = choices.domain == one, choices.domain == two
    raw = np.abs(mask[first].mean(axis=0) - mask[second].mean(axis=0)).sum() / 2
    weights, gaps = [], []
    for token_id in np.unique(choices.token_id):
        here = choices.token_id == token_id
        if (here & first).any() and (here & second).any():
            weights.append(min(here[first].mean(), here[second].mean()))
            gaps.append(mask[here & first].mean(axis=0) - mask[here & second].mean(axis=0))
    same = np.abs(np.average(gaps, axis=0, weights=weights)).sum() / 2 if weights else np.nan
    return sum(weights), raw, same


@pytest.mark.parametrize("tokens", ["all", "prompt"])
def test_beside_numpy(made, take, tokens):
    lake, requests = made
    choices = arrays_of(requests, tokens)
    found = take(lake, "same_token_domain_difference", tokens=tokens)
    keys = [
        (k, *pair) for k in LAYERS for pair in itertools.combinations(["law", "math", "poems"], 2)
    ]
    assert found.select("layer_id", "domain", "second_domain").rows() == keys
    wanted = [differences(choices, choices.ids[key[0]], *key[1:]) for key in keys]
    values = found.select("common", "raw", "same_token").to_numpy()
    np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-12)


def two_domains(request_of, choose):
    """Eight requests of each domain, twelve tokens each; art has even ids three times as often."""
    rng = np.random.default_rng(8)
    requests = []
    for number in range(16):
        domain = ("art", "law")[number % 2]
        odds = np.where((np.arange(6) % 2 == 0) == (domain == "art"), 3.0, 1.0)
        token_ids = rng.choice(6, size=12, p=odds / odds.sum()).tolist()
        tokens = [token(*choose(rng, one, domain)) for one in token_ids]
        requests.append(request_of(f"q{number}", domain, tokens, token_ids=token_ids))
    return requests


def test_token_identity_alone_leaves_no_same_token_difference(make_lake, request_of, take):
    """Each id has an expert of its own, the other is 6 or 7: only raw is above chance.

    Raw is near 1/4, half of the ids' total variation 1/2."""
    requests = two_domains(request_of, lambda rng, one, _: (one, int(rng.integers(6, 8))))
    (row,) = take(make_lake(requests), "same_token_domain_difference", draws=19).to_dicts()
    assert row["raw"] == pytest.approx(0.25, abs=0.08)
    assert row["raw_p"] == 2 / 20
    assert row["raw_chance"] < 0.5 * row["raw"]
    assert row["same_token"] < 0.1
    assert "same_token_p" not in row


def test_a_domain_that_chooses_is_a_same_token_difference(make_lake, request_of, take):
    """The second expert is 6 in art, 7 in law for every id: a difference of 1/2 for equal ids."""
    requests = two_domains(request_of, lambda _, one, domain: (one, 6 if domain == "art" else 7))
    (row,) = take(make_lake(requests), "same_token_domain_difference", draws=19).to_dicts()
    assert row["same_token"] == pytest.approx(0.5)
    assert row["raw_p"] == 2 / 20


def test_chance_is_that_of_exchanged_labels(make_lake, request_of, take):
    """The mean of the raw difference over shuffles of the requests' domains in NumPy."""
    requests = two_domains(request_of, lambda rng, *_: rng.permutation(8)[:2].tolist())
    (row,) = take(make_lake(requests), "same_token_domain_difference", draws=19).to_dicts()
    choices = arrays_of(requests)
    rng = np.random.default_rng(3)
    names = np.array([request.request_id for request in requests])
    domains = np.array([request.domain for request in requests])
    drawn = []
    for _ in range(200):
        of_request = dict(zip(names, rng.permutation(domains), strict=True))
        choices.domain = np.array([of_request[name] for name in choices.request])
        drawn.append(differences(choices, choices.ids[3], "art", "law")[1])
    assert row["raw_chance"] == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 19**0.5)
    assert row["raw_p"] > 0.05
