"""fingerprint_distance: by hand, and beside NumPy on models of other ids and other sizes."""

from itertools import combinations

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, NUM_EXPERTS, arrays_of, noisy_requests


def test_by_hand(make_lake, request_of, together, take):
    """Of three experts r1 chooses {0, 1} twice, r2 (four experts) {0, 1}, {2, 3}.

    Relative loads 1.5, 1.5, 0 against four of 1: a third at 0 and two thirds at 1.5 lie 1/3 + 1/3
    from 1. Pairs: 3, 0, 0 against 3, 3 and four of 0 (6 possible, each of half the tokens): the
    shares above 0 are 1/3 and 1/3, so 0. One domain: every expert works for it alone, so 0.
    """
    one = [{3: {0: 0.6, 1: 0.4}}, {3: {0: 0.6, 1: 0.4}}]
    two = [{7: {0: 0.6, 1: 0.4}}, {7: {2: 0.6, 3: 0.4}}]
    lake = together(
        make_lake([request_of("q", "law", one)], num_experts=3),
        make_lake([request_of("q", "law", two)], num_experts=4, run_id="r2"),
    )
    assert take(lake, "fingerprint_distance", other_run_id="r2").rows() == [
        (3, 7, pytest.approx(2 / 3), 0.0, pytest.approx(0, abs=1e-12))
    ]


def wasserstein(one, two):
    """The mean gap between quantiles, at all places where either steps."""
    one, two = np.sort(one), np.sort(two)
    cuts = np.union1d(np.arange(len(one) + 1) / len(one), np.arange(len(two) + 1) / len(two))
    middle, width = (cuts[1:] + cuts[:-1]) / 2, np.diff(cuts)
    gaps = one[(middle * len(one)).astype(int)] - two[(middle * len(two)).astype(int)]
    return (np.abs(gaps) * width).sum()


def profiles(choices, layer, num_experts, tokens=slice(None)):
    """Loads, shares of work by domain, and pairs, as the header tells them."""
    ids, domain = choices.ids[layer][tokens], choices.domain[tokens]
    load = np.bincount(ids.ravel(), minlength=num_experts) / ids.size * num_experts
    share = np.array(
        [
            np.bincount(ids[domain == name].ravel(), minlength=num_experts)
            / ids[domain == name].size
            for name in sorted(set(domain))
        ]
    )
    work = (share / np.maximum(share.sum(axis=0), 1e-300))[:, share.sum(axis=0) > 0]
    pairs = list(combinations(range(num_experts), 2))
    together = np.array(
        [((ids == i).any(axis=1) & (ids == j).any(axis=1)).sum() for i, j in pairs], dtype=float
    )
    return load, work, together / together.mean()


def distances(one, two):
    return (
        wasserstein(one[0], two[0]),
        np.mean([wasserstein(a, b) for a, b in zip(one[1], two[1], strict=True)]),
        wasserstein(one[2], two[2]),
    )


COLUMNS = ["load_distance", "specialisation_distance", "coactivation_distance"]


@pytest.mark.parametrize("tokens", ["all", "prompt"])
def test_beside_numpy(pair, take, tokens):
    lake, requests, others = pair
    found = take(lake, "fingerprint_distance", other_run_id="r2", tokens=tokens)
    one, two = arrays_of(requests, tokens), arrays_of(others, tokens)
    assert found["other_layer_id"].to_list() == list(LAYERS)
    for layer in LAYERS:
        wanted = distances(*(profiles(c, layer, NUM_EXPERTS) for c in (one, two)))
        row = found.filter(layer_id=layer)
        for column, value in zip(COLUMNS, wanted, strict=True):
            assert row[column].item() == pytest.approx(value, abs=1e-12), column


@pytest.mark.parametrize("made", ["planted"], indirect=True)
def test_a_model_of_another_size(made, make_lake, request_of, together, take):
    """r2 has two of three layers and ids up to 10: depths .25, .75 against 1/6, 1/2, 5/6."""
    lake, requests = made

    def other(tokens):
        return [{4: t[1], 6: {e + 3 * (e > 3): w for e, w in t[5].items()}} for t in tokens]

    others = [
        request_of(r.request_id, r.domain, other(r.prompt), other(r.generated)) for r in requests
    ]
    both = together(lake, make_lake(others, num_experts=11, run_id="r2"))
    found = take(both, "fingerprint_distance", other_run_id="r2")
    one, two = arrays_of(requests), arrays_of(others)
    assert found["other_layer_id"].to_list() == [4, 4, 6]
    for layer, other_layer in zip(LAYERS, [4, 4, 6], strict=True):
        wanted = distances(profiles(one, layer, NUM_EXPERTS), profiles(two, other_layer, 11))
        for column, value in zip(COLUMNS, wanted, strict=True):
            assert found.filter(layer_id=layer)[column].item() == pytest.approx(value, abs=1e-12)


def test_renamed_experts_are_the_same_fingerprint(made, make_lake, request_of, together, take):
    lake, requests = made
    rng = np.random.default_rng(2)
    names = {layer: rng.permutation(NUM_EXPERTS).tolist() for layer in LAYERS}

    def renamed(tokens):
        return [{k: {names[k][e]: w for e, w in v.items()} for k, v in t.items()} for t in tokens]

    others = [
        request_of(r.request_id, r.domain, renamed(r.prompt), renamed(r.generated))
        for r in requests
    ]
    both = together(lake, make_lake(others, run_id="r2"))
    found = take(both, "fingerprint_distance", other_run_id="r2")
    for column in COLUMNS:
        assert found[column].to_list() == pytest.approx([0, 0, 0], abs=1e-12)


@pytest.mark.parametrize("made", ["planted"], indirect=True)
def test_chance_is_a_model_against_itself(made, make_lake, together, take):
    """A run with much noise is told from r1; 200 pairs of samples in NumPy give the mean.

    The mean of 19 draws lies within 0.1 of it, relative loads being about 1.
    """
    lake, requests = made
    others = noisy_requests(requests, 8, 9.0)
    both = together(lake, make_lake(others, run_id="r2"))
    found = take(both, "fingerprint_distance", other_run_id="r2", draws=19)
    assert (found["load_distance"] > found["load_distance_chance_high"]).all()
    assert (found["load_distance_p_adjusted"] <= 0.05).all()

    choices = arrays_of(requests)
    rng = np.random.default_rng(1)
    names = {d: sorted(set(choices.request[choices.domain == d])) for d in set(choices.domain)}
    rows = {name: np.flatnonzero(choices.request == name) for name in set(choices.request)}

    def sample():
        drawn = [rng.choice(group, len(group)) for _, group in sorted(names.items())]
        return np.concatenate([rows[name] for group in drawn for name in group])

    simulated = [
        wasserstein(*(profiles(choices, 2, NUM_EXPERTS, sample())[0] for _ in range(2)))
        for _ in range(200)
    ]
    wanted = np.mean(simulated)
    assert found["load_distance_chance"][1] == pytest.approx(wanted, abs=0.1 * max(wanted, 0.5))
