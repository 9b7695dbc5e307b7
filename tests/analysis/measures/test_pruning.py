"""pruning_plan and pruning_stability: by hand, and beside NumPy on a planted and a random run."""

from hashlib import md5
from math import comb

import numpy as np
import polars as pl
import pytest

from tests.analysis.measures.conftest import LAYERS, NUM_EXPERTS, arrays_of


def test_plan_by_hand(make_lake, request_of, take):
    """law gives {0: 1.2, 1: .8} of 2, math {2: .9, 1: .1} of 1: .3, .25 and .45 on average.

    By choices 0 and 1 have half of law, 1 and 2 half of math: 1/4, 1/2, 1/4.
    """
    lake = make_lake(
        [
            request_of("q", "law", [{3: {0: 0.6, 1: 0.4}}, {3: {0: 0.6, 1: 0.4}}]),
            request_of("p", "math", [{3: {2: 0.9, 1: 0.1}}]),
        ],
        num_experts=4,
    )
    kept = pytest.approx(0.75)
    assert take(lake, "pruning_plan").rows() == [
        (3, 2, 1, pytest.approx(0.45), 1, kept, 0.5),
        (3, 0, 2, pytest.approx(0.3), 1, kept, 0.5),
        (3, 1, 3, pytest.approx(0.25), 0, kept, 0.5),
        (3, 3, 4, 0.0, 0, kept, 0.5),
    ]
    assert take(lake, "pruning_plan", keep=1, by="frequency").rows() == [
        (3, 1, 1, 0.5, 1, 0.5, 0.25),
        (3, 0, 2, 0.25, 0, 0.5, 0.25),
        (3, 2, 3, 0.25, 0, 0.5, 0.25),
        (3, 3, 4, 0.0, 0, 0.5, 0.25),
    ]
    assert take(lake, "pruning_plan", keep=9)["kept"].sum() == 4


def test_stability_by_hand(make_lake, request_of, take):
    """One request a side: {0, 1} and {0, 2} share 1 of 3.

    Of C(4, 2) = 6 sets, 1 is the same, 4 share one of three, 1 none: (1 + 4 / 3) / 6 = 7 / 18.
    """
    lake = make_lake(
        [
            request_of("q", "law", [{3: {0: 0.6, 1: 0.4}}]),
            request_of("p", "law", [{3: {0: 0.6, 2: 0.4}}]),
        ],
        num_experts=4,
    )
    assert take(lake, "pruning_stability").rows() == [
        (3, 1, pytest.approx(1 / 3), pytest.approx(7 / 18))
    ]


def scores(choices, layer, by, requests=None):
    """The mean over domains of each expert's share, of some requests."""
    ids, weights = choices.ids[layer], choices.weights[layer]
    wanted = np.isin(choices.request, list(requests or set(choices.request)))
    found = []
    for domain in sorted(set(choices.domain[wanted])):
        rows = wanted & (choices.domain == domain)
        amount = weights[rows].ravel() if by == "mass" else None
        shares = np.bincount(ids[rows].ravel(), amount, NUM_EXPERTS).astype(float)
        found.append(shares / shares.sum())
    return np.mean(found, axis=0)


@pytest.mark.parametrize("by", ["mass", "frequency"])
@pytest.mark.parametrize("tokens", ["all", "last-prompt"])
def test_plan_beside_numpy(made, take, tokens, by):
    lake, requests = made
    choices = arrays_of(requests, tokens)
    found = take(lake, "pruning_plan", tokens=tokens, keep=3, by=by)
    for layer in LAYERS:
        score = scores(choices, layer, by)
        order = np.lexsort((np.arange(NUM_EXPERTS), -np.round(score, 12)))
        rows = found.filter(layer_id=layer)
        assert rows["expert_id"].to_list() == order.tolist()
        np.testing.assert_allclose(rows["score"], score[order], atol=1e-12)
        assert rows["kept"].to_list() == [1] * 3 + [0] * 5
        np.testing.assert_allclose(rows["kept_share"], score[order[:3]].sum(), atol=1e-12)
        assert set(rows["kept_share_even"]) == {3 / 8}


def digest(text):
    return md5(text.encode(), usedforsecurity=False).hexdigest()


def top(score, side, size, layer, keep):
    hashes = [digest(f"{side}/{size}/{layer}/{e}") for e in range(NUM_EXPERTS)]
    return set(sorted(range(NUM_EXPERTS), key=lambda e: (-round(score[e], 12), hashes[e]))[:keep])


def closed_form(num_experts, keep):
    return sum(
        comb(keep, s)
        * comb(num_experts - keep, keep - s)
        / comb(num_experts, keep)
        * s
        / (2 * keep - s)
        for s in range(keep + 1)
    )


@pytest.mark.parametrize("keep", [2, 5, 8])
@pytest.mark.parametrize("tokens", ["all", "prompt"])
def test_stability_beside_numpy(made, take, tokens, keep):
    """16 requests: samples of 1, 2, 4 and 8."""
    lake, requests = made
    choices = arrays_of(requests, tokens)
    found = take(lake, "pruning_stability", tokens=tokens, keep=keep)
    order = sorted(set(choices.request), key=digest)
    assert found["sample_size"].to_list() == [1, 2, 4, 8] * 3
    for layer, size, jaccard, expected in found.iter_rows():
        one, two = (
            top(scores(choices, layer, "mass", part[:size]), side, size, layer, keep)
            for side, part in ((1, order[::2]), (2, order[1::2]))
        )
        assert jaccard == pytest.approx(len(one & two) / len(one | two), abs=1e-12)
        assert expected == pytest.approx(closed_form(NUM_EXPERTS, keep), abs=1e-12)


@pytest.mark.parametrize("size", [(64, 6, 0.0532), (128, 8, 0.0343)])
def test_closed_form_of_models(make_lake, request_of, take, size):
    """The expected Jaccard index of random sets of published sizes."""
    experts, keep, known = size
    requests = [request_of(name, "law", [{3: {0: 0.6, 1: 0.4}}]) for name in "qp"]
    found = take(make_lake(requests, num_experts=experts), "pruning_stability", keep=keep)
    assert found["jaccard_closed_form"].item() == pytest.approx(known, abs=5e-5)
    assert found["jaccard_closed_form"].item() == pytest.approx(closed_form(experts, keep))


@pytest.mark.parametrize("made", ["planted"], indirect=True)
def test_chance_is_the_closed_form(made, take):
    """19 draws of three layers and four sizes: the mean of all lies within 0.04 of it.

    The planted run's best experts are 0 and 4 (even token ids), and 1, 2 and 3 by domain.
    """
    found = take(made[0], "pruning_stability", keep=5, draws=19)
    expected = closed_form(NUM_EXPERTS, 5)
    assert found["jaccard_chance"].mean() == pytest.approx(expected, abs=0.04)
    largest = found.filter(pl.col("sample_size") >= 4)
    assert largest["jaccard"].mean() > expected + 0.2
    assert largest["jaccard"].mean() > largest["jaccard_chance_high"].mean()


def test_a_plan_has_intervals_and_no_chance(made, take):
    found = take(made[0], "pruning_plan", draws=9)
    assert [c for c in found.columns if "chance" in c] == []
    assert (found["score_low"] <= found["score_high"]).all()
