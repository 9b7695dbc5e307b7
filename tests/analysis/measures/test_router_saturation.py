"""router_saturation and routing_fluctuation: by hand, and beside NumPy on two runs."""

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, NUM_EXPERTS, TOP_K, arrays_of
from tests.analysis.measures.test_two_runs import compared_places

BOTH = ["router_saturation", "routing_fluctuation"]


def test_by_hand(make_lake, request_of, together, take):
    """r1 {0, 1}, {2, 3}, {0, 2}; r2 {1, 0}, {2, 1}, {3, 1}: 2 + 1 + 0 of 6 shared; firsts 1 of 3.

    Chosen by expert: 2, 1, 2, 1 and 1, 3, 1, 1: (2 + 3 + 2 + 1) / (3 * 3 * 2) = 4 / 9 by chance.
    First: 0, 2, 0 and 1, 2, 3: of nine pairs only 2 with 2. All three sets differ but the first.
    A token of r1 alone is not compared, nor is what follows a token that differs.
    """
    one = [{3: {0: 0.6, 1: 0.4}}, {3: {2: 0.6, 3: 0.4}}]
    two = [{3: {1: 0.6, 0: 0.4}}, {3: {2: 0.6, 1: 0.4}}]
    last, other_last = {3: {0: 0.6, 2: 0.4}}, {3: {3: 0.6, 1: 0.4}}
    lake = together(
        make_lake(
            [
                request_of("q", "law", one, token_ids=[7, 8]),
                request_of("p", "law", [last, last, last], token_ids=[7, 8, 9]),
            ],
            num_experts=4,
        ),
        make_lake(
            [
                request_of("q", "law", two, token_ids=[7, 8]),
                request_of("p", "law", [other_last, last, last], token_ids=[7, 9, 9]),
            ],
            num_experts=4,
            run_id="r2",
        ),
    )
    assert take(lake, "router_saturation", other_run_id="r2").rows() == [
        (3, 3, 0.5, pytest.approx(4 / 9), 0.5, pytest.approx(1 / 3), pytest.approx(1 / 9))
    ]
    assert take(lake, "routing_fluctuation", other_run_id="r2").rows() == [
        (3, 3, pytest.approx(2 / 3), pytest.approx(8 / 9), 0.75, pytest.approx(2 / 3))
    ]


def expected(requests, others, tokens="all"):
    """By layer: tokens, then of each measure's values and their closed forms."""
    places = compared_places(requests, others)
    one, two = arrays_of(requests, tokens), arrays_of(others, tokens)
    second = {p: i for i, p in enumerate(zip(two.request, two.position.tolist(), strict=True))}
    pairs = [
        (i, second[p])
        for i, p in enumerate(zip(one.request, one.position.tolist(), strict=True))
        if p in places
    ]
    mine, theirs = np.array(pairs).T
    for layer in LAYERS:
        a, b = one.ids[layer][mine], two.ids[layer][theirs]
        shared = [len(set(x) & set(y)) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
        chosen = [np.bincount(x.ravel(), minlength=NUM_EXPERTS) / len(x) for x in (a, b)]
        first = [np.bincount(x[:, 0], minlength=NUM_EXPERTS) / len(x) for x in (a, b)]
        agreed = (a[:, 0] == b[:, 0]).mean()
        yield {
            "num_tokens": len(a),
            "saturation": np.mean(shared) / TOP_K,
            "saturation_closed_form": (chosen[0] * chosen[1]).sum() / TOP_K,
            "saturation_even": TOP_K / NUM_EXPERTS,
            "top_agreement": agreed,
            "top_agreement_closed_form": (first[0] * first[1]).sum(),
            "fluctuation": 1 - agreed,
            "fluctuation_closed_form": 1 - (first[0] * first[1]).sum(),
            "fluctuation_even": 1 - 1 / NUM_EXPERTS,
            "set_fluctuation": np.mean(np.array(shared) < TOP_K),
        }


@pytest.mark.parametrize("tokens", ["all", "generated"])
@pytest.mark.parametrize("name", BOTH)
def test_beside_numpy(pair, take, name, tokens):
    lake, requests, others = pair
    found = take(lake, name, other_run_id="r2", tokens=tokens)
    assert found["layer_id"].to_list() == list(LAYERS)
    for row, wanted in zip(
        found.iter_rows(named=True), expected(requests, others, tokens), strict=True
    ):
        for column in found.columns[1:]:
            assert row[column] == pytest.approx(wanted[column], abs=1e-12), column


@pytest.mark.parametrize("name", BOTH)
def test_a_run_saturates_itself(made, make_lake, together, take, name):
    lake, requests = made
    second = make_lake(requests, run_id="r2")
    found = take(together(lake, second), name, other_run_id="r2")
    if name == "router_saturation":
        assert found["saturation"].to_list() == found["top_agreement"].to_list() == [1, 1, 1]
    else:
        assert found["fluctuation"].to_list() == found["set_fluctuation"].to_list() == [0, 0, 0]


@pytest.mark.parametrize("made", ["planted"], indirect=True)
@pytest.mark.parametrize("name", BOTH)
def test_chance_is_the_closed_form_and_the_runs_are_told_from_it(pair, take, name):
    """19 draws of about 80 tokens: a mean lies within 0.03 of its expectation."""
    found = take(pair[0], name, other_run_id="r2", draws=19)
    values = {
        "router_saturation": ["saturation", "top_agreement"],
        "routing_fluctuation": ["fluctuation"],
    }[name]
    for value in values:
        np.testing.assert_allclose(
            found[f"{value}_chance"], found[f"{value}_closed_form"], atol=0.03
        )
        assert (found[f"{value}_p_adjusted"] <= 0.05).all()
        assert (found[f"{value}_low"] <= found[value]).all()
        assert (found[value] <= found[f"{value}_high"]).all()
