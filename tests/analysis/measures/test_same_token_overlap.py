"""same_token_overlap: by hand, beside every pair in NumPy, and its chance level."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, NUM_EXPERTS, TOP_K, arrays_of


def token(first, second):
    return {3: {first: 0.6, second: 0.4}}


def chance_jaccard():
    """Mean over all pairs of experts of their Jaccard index with one pair."""
    pairs = [set(pair) for pair in itertools.combinations(range(NUM_EXPERTS), TOP_K)]
    return np.mean([len(pair & {0, 1}) / len(pair | {0, 1}) for pair in pairs])


def test_by_hand(make_lake, request_of, take):
    """Request q: id 50 {0, 1}, 50 {0, 2}, 51 {4, 5}; r: 50 {0, 1}, 52 {4, 1}, -1 {0, 1}.

    Equal ids in two requests: 50 with 50 twice, overlaps 2/2 and 1/2. Others: 50-52 1/2 and 0,
    51-50 0, 51-52 1/2; the mean of four is 1/4. The unknown id has no pairs. k / E = 1/4.
    Jaccard: (1 + 1/3) / 2, and (1/3 + 0 + 0 + 1/3) / 4.
    """
    near = pytest.approx
    q = request_of("q", "law", [token(0, 1), token(0, 2), token(4, 5)], token_ids=[50, 50, 51])
    r = request_of("r", "law", [token(0, 1), token(4, 1), token(0, 1)], token_ids=[50, 52, -1])
    found = take(make_lake([q, r]), "same_token_overlap")
    start = (3, 2, 4, 1, 0.75, 0.75, 0.25, 0.5, 0.25, 5)
    assert found.rows() == [(*start, near(2 / 3), near(1 / 6), near(chance_jaccard()))]


def test_a_single_request_has_no_pairs(make_lake, request_of, take):
    lake = make_lake([request_of("q", "law", [token(0, 1)] * 3, token_ids=[5, 5, 6])])
    assert take(lake, "same_token_overlap").rows() == [
        (3, 0, 0, 0, None, None, None, None, 0.25, 3, None, None, pytest.approx(chance_jaccard()))
    ]


def of_pairs(choices, ids, token_id):
    """(same, by ids, different, pairs of each, Jaccards of both) over all pairs, one by one."""
    same, different = {}, []
    jaccards = [], []
    for t in range(len(ids)):
        for u in range(t):
            if choices.request[t] == choices.request[u]:
                continue
            both = set(ids[t]) & set(ids[u])
            overlap = len(both) / TOP_K
            jaccards[int(token_id[t] != token_id[u])].append(len(both) / len({*ids[t], *ids[u]}))
            if token_id[t] == token_id[u]:
                same.setdefault(token_id[t], []).append(overlap)
            else:
                different.append(overlap)
    pooled = np.concatenate(list(same.values()))
    by_ids = np.mean([np.mean(some) for some in same.values()])
    numbers = len(pooled), len(different), len(same)
    return pooled.mean(), by_ids, np.mean(different), *numbers, *map(np.mean, jaccards)


@pytest.mark.parametrize("tokens", ["all", "generated"])
def test_beside_numpy(made, take, tokens):
    lake, requests = made
    choices = arrays_of(requests, tokens)
    found = take(lake, "same_token_overlap", tokens=tokens)
    assert found["layer_id"].to_list() == list(LAYERS)
    columns = ["same_id", "same_id_by_ids", "different_id", "num_same_id", "num_different_id"]
    columns += ["num_token_ids", "same_id_jaccard", "different_id_jaccard"]
    rows = found.select(columns).rows()
    assert set(found["num_compared"]) == {len(choices.token_id)}
    for row, ids in zip(rows, choices.ids.values(), strict=True):
        assert row == pytest.approx(of_pairs(choices, ids, choices.token_id), abs=1e-12)
    assert found["difference"].to_list() == pytest.approx(
        (found["same_id"] - found["different_id"]).to_list()
    )
    assert set(found["closed_form"]) == {TOP_K / NUM_EXPERTS}


def many(request_of, choose):
    """Ten requests of twelve tokens with ids 10 to 15."""
    rng = np.random.default_rng(8)
    requests = []
    for number in range(10):
        token_ids = rng.integers(10, 16, 12).tolist()
        tokens = [token(*choose(rng, one)) for one in token_ids]
        requests.append(request_of(f"q{number}", "law", tokens, token_ids=token_ids))
    return requests


def test_ids_that_decide_are_told_from_chance(make_lake, request_of, take):
    """Each of six ids has an expert of its own, the other is 6 or 7: 1/2 + 1/4 for equal ids.

    Different ids share 6 or 7 half the time: 1/4. By chance equal ids are 1 of 6 pairs.
    """
    requests = many(request_of, lambda rng, one: (one - 10, int(rng.integers(6, 8))))
    (row,) = take(make_lake(requests), "same_token_overlap", draws=19).to_dicts()
    assert row["same_id"] == pytest.approx(0.75, abs=0.05)
    assert row["different_id"] == pytest.approx(0.25, abs=0.05)
    for value in ("same_id", "same_id_by_ids", "difference"):
        assert row[f"{value}_p"] == 2 / 20
    choices = arrays_of(requests)
    rng = np.random.default_rng(1)
    drawn = [of_pairs(choices, choices.ids[3], rng.permutation(choices.token_id)) for _ in range(9)]
    for place, value in enumerate(["same_id", "same_id_by_ids", "different_id"]):
        means = [one[place] for one in drawn]
        spread = np.std(means) * (1 / 9 + 1 / 19) ** 0.5
        assert row[f"{value}_chance"] == pytest.approx(np.mean(means), abs=4 * spread)
    assert row["difference_chance"] == pytest.approx(0, abs=0.01)


def test_even_choices_have_the_closed_form(make_lake, request_of, take):
    requests = many(request_of, lambda rng, _: rng.permutation(NUM_EXPERTS)[:TOP_K].tolist())
    (row,) = take(make_lake(requests), "same_token_overlap", draws=19).to_dicts()
    assert row["closed_form"] == 0.25
    assert row["same_id_chance"] == pytest.approx(0.25, abs=0.02)
    assert row["different_id_chance"] == pytest.approx(0.25, abs=0.02)
    assert row["difference_p"] > 0.1


def test_copies_of_a_request_are_no_pairs(make_lake, request_of, take):
    """Two requests that share no expert: drawn anew, a copy of one still overlaps with nothing."""
    q = request_of("q", "law", [token(0, 1)] * 2, token_ids=[5, 5])
    r = request_of("r", "law", [token(2, 3)] * 2, token_ids=[5, 5])
    (row,) = take(make_lake([q, r]), "same_token_overlap", draws=9).to_dicts()
    assert row["same_id"] == row["same_id_low"] == row["same_id_high"] == 0
    assert row["different_id"] is None
    assert math.isnan(row["different_id_chance"])


def test_jaccard_of_some_tokens(made, take):
    """Of 40 tokens about 40 are compared, near what all give; of 0 none, and nothing else moves."""
    lake, _ = made
    every = take(lake, "same_token_overlap")
    some = take(lake, "same_token_overlap", jaccard_tokens=40)
    none = take(lake, "same_token_overlap", jaccard_tokens=0)
    assert all(abs(number - 40) <= 4 for number in some["num_compared"])
    for name in ("same_id_jaccard", "different_id_jaccard"):
        assert some[name].to_list() == pytest.approx(every[name].to_list(), abs=0.2)
        assert none[name].to_list() == [None] * len(LAYERS)
    same = ["same_id", "different_id", "num_same_id", "jaccard_closed_form"]
    assert every.select(same).equals(some.select(same))
    assert every.select(same).equals(none.select(same))


def test_jaccard_of_copies_is_of_no_pairs(made, take, copied):
    """Drawn anew, pairs of copies do not count: the interval beside NumPy without them."""
    lake, requests = made
    choices = arrays_of(requests)
    names, first = np.unique(choices.request, return_index=True)
    rows = np.concatenate(
        [np.flatnonzero(choices.request == names[place]) for place in copied(choices.domain[first])]
    )
    again = replace(choices, request=choices.request[rows])
    found = take(lake, "same_token_overlap", draws=1)
    for layer, row in zip(LAYERS, found.to_dicts(), strict=True):
        *_, same, different = of_pairs(again, choices.ids[layer][rows], choices.token_id[rows])
        assert row["same_id_jaccard_low"] == pytest.approx(same)
        assert row["different_id_jaccard_high"] == pytest.approx(different)
