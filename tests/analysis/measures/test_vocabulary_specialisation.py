"""vocabulary_specialisation and token_roles: by hand, beside NumPy, and beside shuffled ids."""

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, NUM_EXPERTS, TOP_K, arrays_of


def token(first, second):
    return {3: {first: 0.6, second: 0.4}}


@pytest.fixture
def small(make_lake, request_of):
    """Id 50 chooses {0, 1}, {0, 2}, {0, 3}, id 51 {4, 5}, {1, 4}; -1 {6, 7}; 52 is not routed."""
    law = request_of("q", "law", [token(0, 1), token(4, 5), token(0, 2)], token_ids=[50, 51, 50])
    art = request_of(
        "r", "art", [token(6, 7)], [token(3, 0), token(1, 4)], token_ids=[-1, 50, 51, 52]
    )
    return make_lake([law, art])


def test_by_hand(small, take):
    """Id 50 goes to 0 in 3 of 3 tokens, 51 to 4 in 2 of 2, so both means are 1; k / E = 1/4."""
    assert take(small, "vocabulary_specialisation", least_count=1).rows() == [
        (3, 2, 5, 1.0, 1.0, 0.25)
    ]
    assert take(small, "vocabulary_specialisation", least_count=3).rows() == [
        (3, 1, 3, 1.0, 1.0, 0.25)
    ]
    assert take(small, "vocabulary_specialisation").rows() == [(3, 0, 0, None, None, 0.25)]


def test_roles_by_hand(small, take):
    """50 is in law twice and in art once, always with 0; 51 once in each, always with 4.

    0 is in 3 of the 5 tokens with known ids, 4 in 2. With two occurrences in a domain asked for,
    only 50 in law is left; there it goes to 0 both times, to 1 and to 2 once.
    """
    bounds = {"least_domains": 2, "least_count": 1}
    assert take(small, "token_roles", **bounds).rows() == [
        (3, 0, 50, 2, 3, 1.0, 0.6, pytest.approx(5 / 3), 0.25),
        (3, 4, 51, 2, 2, 1.0, 0.4, pytest.approx(5 / 2), 0.25),
    ]
    assert take(small, "token_roles", **{**bounds, "least_count": 2}).is_empty()
    found = take(small, "token_roles", least_rate=0.5, least_domains=1, least_count=2)
    assert found.select("expert_id", "token_id", "num_domains", "num_tokens").rows() == [
        (0, 50, 1, 3),
        (1, 50, 1, 3),
        (2, 50, 1, 3),
    ]
    assert found["rate"].to_list() == pytest.approx([1, 1 / 3, 1 / 3])


def specialisations(token_id, ids, least_count):
    """(ids, tokens, plain mean, mean by tokens) of one layer, in a loop over ids."""
    shares, sizes = [], []
    for one in np.unique(token_id[token_id >= 0]):
        chosen = ids[token_id == one]
        if len(chosen) >= least_count:
            shares.append(np.bincount(chosen.ravel()).max() / len(chosen))
            sizes.append(len(chosen))
    if not sizes:
        return 0, 0, np.nan, np.nan
    return len(sizes), sum(sizes), np.mean(shares), np.average(shares, weights=sizes)


@pytest.mark.parametrize(("tokens", "least"), [("all", 10), ("prompt", 3), ("generated", 1)])
def test_beside_numpy(made, take, tokens, least):
    lake, requests = made
    choices = arrays_of(requests, tokens)
    found = take(lake, "vocabulary_specialisation", tokens=tokens, least_count=least)
    assert found["layer_id"].to_list() == list(LAYERS)
    assert (found["num_token_ids"] > 0).all()
    for row, ids in zip(found.iter_rows(), choices.ids.values(), strict=True):
        wanted = specialisations(choices.token_id, ids, least)
        assert row[1:5] == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("tokens", ["all", "prompt"])
def test_roles_beside_numpy(made, take, tokens):
    lake, requests = made
    choices = arrays_of(requests, tokens)
    bounds = {"least_rate": 0.4, "least_count": 2, "least_domains": 2}
    wanted = []
    for layer, ids in choices.ids.items():
        mask = (ids[:, :, None] == np.arange(NUM_EXPERTS)).any(axis=1)
        for one in np.unique(choices.token_id):
            here = choices.token_id == one
            passed = np.zeros(NUM_EXPERTS, dtype=int)
            for domain in np.unique(choices.domain):
                some = mask[here & (choices.domain == domain)]
                if len(some) >= 2:
                    passed += some.mean(axis=0) >= 0.4
            for expert in np.flatnonzero(passed >= 2):
                rate, base = mask[here, expert].mean(), mask[:, expert].mean()
                key = (layer, expert, -passed[expert], -rate, one)
                wanted.append((*key, here.sum(), base, rate / base, TOP_K / NUM_EXPERTS))
    wanted.sort()
    found = take(lake, "token_roles", tokens=tokens, **bounds)
    assert found.height == len(wanted) > 5
    columns = ["layer_id", "expert_id", "num_domains", "rate", "token_id", "num_tokens"]
    values = found.select(*columns, "base_rate", "lift", "even_share").to_numpy()
    signs = np.array([1, 1, -1, -1, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(values * signs, np.array(wanted, dtype=float), atol=1e-12)


def test_ids_are_what_chance_breaks(make_lake, request_of, take):
    """Even ids go to 0, odd ones to 1, beside a random expert: 1 for all, by chance 1/2 and more.

    Chance is compared with shuffles of the same ids in NumPy.
    """
    rng = np.random.default_rng(8)
    token_ids = rng.integers(10, 16, 120)
    ids = np.array([[one % 2, rng.integers(2, 8)] for one in token_ids])
    requests = [
        request_of(
            f"q{i}",
            "law",
            [token(*pair) for pair in ids[i * 12 : i * 12 + 12].tolist()],
            token_ids=token_ids[i * 12 : i * 12 + 12].tolist(),
        )
        for i in range(10)
    ]
    found = take(make_lake(requests), "vocabulary_specialisation", draws=39)
    (row,) = found.to_dicts()
    assert row["specialisation"] == row["specialisation_by_tokens"] == 1
    drawn = [specialisations(rng.permutation(token_ids), ids, 10)[2:] for _ in range(400)]
    means, spreads = np.mean(drawn, axis=0), np.std(drawn, axis=0)
    for value, mean, spread in zip(
        ("specialisation", "specialisation_by_tokens"), means, spreads, strict=True
    ):
        assert row[f"{value}_chance"] == pytest.approx(mean, abs=4 * spread / 39**0.5)
        assert row[f"{value}_p"] == 2 / 40
    assert 0.5 < row["specialisation_chance"] < 0.7


def test_a_run_of_chance_lies_in_its_band(make_lake, request_of, take):
    rng = np.random.default_rng(9)
    tokens = [token(*rng.permutation(8)[:2].tolist()) for _ in range(120)]
    token_ids = rng.integers(10, 16, 120).tolist()
    lake = make_lake([request_of("q", "law", tokens, token_ids=token_ids)])
    (row,) = take(lake, "vocabulary_specialisation", draws=39).to_dicts()
    assert row["specialisation"] > row["even_share"]
    assert row["specialisation_p"] > 0.1


def test_copies_of_an_occurrence_are_one(make_lake, request_of, take, copied):
    """Of five requests q0, q0, q0, q1, q2 are drawn. Each has id 50, q0 also 51.

    Of 50's occurrences 3 of those 5 go to 0, as recorded 2 of 5. 51 has three copies of one
    occurrence: with three asked for, 50 alone counts; with copies counted the mean would be
    (3 / 5 + 1) / 2. With four asked for none counts, since 50 has three of its own.
    """
    choices = [(0, 1), (2, 3), (4, 5), (6, 7), (0, 2)]
    requests = [
        request_of(f"q{n}", "law", [token(*pair)], token_ids=[50]) for n, pair in enumerate(choices)
    ]
    requests[0] = request_of("q0", "law", [token(0, 1), token(5, 6)], token_ids=[50, 51])
    lake = make_lake(requests)
    (row,) = take(lake, "vocabulary_specialisation", draws=2, least_count=3).to_dicts()
    for name in ("specialisation", "specialisation_by_tokens"):
        assert row[name] == pytest.approx(2 / 5)
        assert row[f"{name}_low"] == row[f"{name}_high"] == pytest.approx(3 / 5)
    (row,) = take(lake, "vocabulary_specialisation", draws=2, least_count=4).to_dicts()
    assert row["specialisation"] == pytest.approx(2 / 5)
    assert np.isnan(row["specialisation_low"])
