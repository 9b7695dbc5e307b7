"""segment_consistency and cache_hits: by hand, beside NumPy, and against tokens in any order."""

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, NUM_EXPERTS, TOP_K, arrays_of


def token(first, second):
    return {3: {first: 0.6, second: 0.4}}


@pytest.fixture
def small(make_lake, request_of):
    """Prompt {0, 1} {0, 2} {3, 2} {0, 1} {0, 1}; one generated token; another of one token."""
    prompt = [token(0, 1), token(0, 2), token(3, 2), token(0, 1), token(0, 1)]
    q = request_of("q", "law", prompt, [token(0, 1)])
    return make_lake([q, request_of("r", "law", [token(4, 5)])], num_experts=6)


def test_by_hand(small, take):
    """Segments of two tokens: four of the prompt, none of the rest.

    f of 0: 2, 1, 1, 2: a = 1 keeps 4 * 2 for 6, F1 = 12 / 14; a = 2 is 8 / (4 + 6), less.
    f of 1: 1, 0, 1, 2: a = 1: 8 / (6 + 4), a = 2: 4 / (2 + 4). f of 2: 1, 2, 1: 8 / (6 + 4), and
    4 / (2 + 4). f of 3: 1, 1 at a = 1: 4 / (4 + 2). The layer has all of these f: a = 1 keeps 12
    times 2 for 16, 32 / (24 + 16); a = 2 keeps 4 times 2 for 8, 16 / (8 + 16).
    """
    third = pytest.approx(2 / 3)
    assert take(small, "segment_consistency", segment=2).rows() == [
        (3, None, 4, 16, 1, 0.8, 1.5),
        (3, 0, 4, 6, 1, pytest.approx(6 / 7), pytest.approx(4 / 3)),
        (3, 1, 4, 4, 1, 0.8, 1.5),
        (3, 2, 4, 4, 1, 0.8, 1.5),
        (3, 3, 4, 2, 1, third, 2.0),
        (3, 4, 4, 0, None, None, None),
        (3, 5, 4, 0, None, None, None),
    ]


def test_without_a_segment_there_is_no_score(small, take):
    found = take(small, "segment_consistency")
    assert found.height == 7
    assert found["num_segments"].sum() == found["srp"].count() == 0
    assert take(small, "cache_hits").rows() == [(3, 0, 0, None, None, None, 1.0)]


def test_hits_by_hand(small, take):
    """Segments {0, 1} {0, 2} and {3, 2} {0, 1}: a cache of one holds 0 (2 of 4), then 0 (1 of 4).

    0 is the most chosen of both (3 of 8), then 1 and 2 with 2: a fixed cache of two holds 0 and 1,
    5 of 8; those of the segments hold 0 and 1 (3 of 4), then 0 and 1 (2 of 4).
    """
    found = take(small, "cache_hits", segment=2, cache_experts=1)
    assert found.rows() == [(3, 2, 8, 0.375, 0.375, 0.0, pytest.approx(1 / 6))]
    found = take(small, "cache_hits", segment=2, cache_experts=2)
    assert found.rows() == [(3, 2, 8, 0.625, 0.625, 0.0, pytest.approx(1 / 3))]
    found = take(small, "cache_hits", segment=1, cache_experts=2)
    assert found["hit_rate"].item() == 1.0


def routed(choices, ids):
    """0/1 tables [tokens, experts] of each request and phase, in order."""
    mask = (ids[:, :, None] == np.arange(NUM_EXPERTS)).any(axis=1).astype(int)
    keys = [*zip(choices.request, choices.phase, strict=True)]
    for key in sorted(set(keys)):
        yield mask[[one == key for one in keys]]


def best_f1(f, size):
    """(a, F1, rho) of segments' counts; a is one of them, of equal ones the smallest."""
    scores = []
    for a in np.unique(f[f > 0]).tolist():
        kept = f[f >= a]
        f1 = 2 * kept.sum() / (size * kept.size + f.sum())
        scores.append((f1, -a, size * kept.size / f.sum()))
    if not scores:
        return np.nan, np.nan, np.nan
    f1, a, rho = max(scores)
    return -a, f1, rho


@pytest.mark.parametrize(("tokens", "size"), [("all", 3), ("prompt", 2), ("generated", 4)])
def test_beside_numpy(made, take, tokens, size):
    lake, requests = made
    choices = arrays_of(requests, tokens)
    found = take(lake, "segment_consistency", tokens=tokens, segment=size)
    for layer in LAYERS:
        windows = [
            mask[first : first + size].sum(axis=0)
            for mask in routed(choices, choices.ids[layer])
            for first in range(len(mask) - size + 1)
        ]
        f = np.array(windows)
        rows = found.filter(layer_id=layer)
        assert rows["expert_id"].to_list() == [None, *range(NUM_EXPERTS)]
        assert set(rows["num_segments"]) == {len(f)}
        assert rows["num_choices"].to_list() == [f.sum(), *f.sum(axis=0)]
        wanted = [best_f1(f.ravel(), size), *(best_f1(f[:, e], size) for e in range(NUM_EXPERTS))]
        values = rows.select("threshold", "srp", "rho").cast(float).to_numpy()
        np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("tokens", "size", "cache"), [("all", 3, 2), ("prompt", 2, 3)])
def test_hits_beside_numpy(made, take, tokens, size, cache):
    lake, requests = made
    choices = arrays_of(requests, tokens)
    found = take(lake, "cache_hits", tokens=tokens, segment=size, cache_experts=cache)
    for layer, row in zip(LAYERS, found.iter_rows(), strict=True):
        f = np.array(
            [
                mask[first : first + size].sum(axis=0)
                for mask in routed(choices, choices.ids[layer])
                for first in range(0, len(mask) - size + 1, size)
            ]
        )
        best = np.sort(f, axis=1)[:, -cache:].sum() / f.sum()
        fixed = np.sort(f.sum(axis=0))[-cache:].sum() / f.sum()
        wanted = (layer, len(f), f.sum(), best, fixed, best - fixed, cache / NUM_EXPERTS)
        assert row == pytest.approx(wanted, abs=1e-12)
        assert f.sum() == len(f) * size * TOP_K


@pytest.fixture
def blocks(make_lake, request_of):
    """Four requests that choose {0, 1} eight times, then {2, 3} eight times."""
    tokens = [token(0, 1)] * 8 + [token(2, 3)] * 8
    return make_lake([request_of(f"q{i}", "law", tokens) for i in range(4)])


def test_blocks_are_told_from_tokens_in_any_order(blocks, take):
    """In segments of four and blocks of eight, chance is a NumPy simulation of shuffled tokens."""
    found = take(blocks, "segment_consistency", segment=4, draws=19)
    (layer,) = found.filter(found["expert_id"].is_null()).to_dicts()
    rng = np.random.default_rng(0)
    order = np.repeat([0, 1], 8)
    drawn = []
    for _ in range(200):
        f = []
        for _ in range(4):
            one = np.lib.stride_tricks.sliding_window_view(rng.permutation(order), 4).sum(axis=1)
            f += [one, one, 4 - one, 4 - one]
        drawn.append(best_f1(np.concatenate(f), 4)[1])
    assert layer["srp_p"] == 2 / 20
    assert layer["srp"] > np.max(drawn)
    assert layer["srp_chance"] == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 19**0.5)


def test_a_cache_that_follows_blocks_gains(blocks, take):
    """A cache of two serves each whole segment; a fixed one half of all choices."""
    (row,) = take(blocks, "cache_hits", segment=4, cache_experts=2, draws=19).to_dicts()
    assert (row["hit_rate"], row["fixed_hit_rate"], row["gain"]) == (1.0, 0.5, 0.5)
    assert row["fixed_hit_rate_chance"] == 0.5
    assert row["gain_p"] == 2 / 20
    assert row["hit_rate_chance"] < 0.85
