"""repetition: by hand, beside NumPy, and its chance level beside closed forms."""

from math import comb

import numpy as np
import pytest

from tests.analysis.measures.conftest import NUM_EXPERTS, TOP_K, arrays_of


def token(first, second):
    return {3: {first: 0.6, second: 0.4}}


def test_by_hand(make_lake, request_of, take):
    """Prompt (0,1) (0,2) (2,0) | generated (2,0) (4,5) (4,1); another request of one token.

    Pairs of the prompt: 0 repeats and is shared; then {2, 0} are shared and the first choice
    changes. Generated: nothing is shared, then 4 repeats. No pair crosses the phases.
    E = 8, k = 2: 1/8, 1 - 15/28, 2/8.
    """
    lake = make_lake(
        [
            request_of(
                "q",
                "law",
                [token(0, 1), token(0, 2), token(2, 0)],
                [token(2, 0), token(4, 5), token(4, 1)],
            ),
            request_of("r", "law", [token(0, 1)]),
        ]
    )
    any_closed = pytest.approx(13 / 28)
    assert take(lake, "repetition").rows() == [
        (3, "prompt", 2, 0.5, 1.0, 0.75, 0.125, any_closed, 0.25),
        (3, "generated", 2, 0.5, 0.5, 0.25, 0.125, any_closed, 0.25),
    ]


def test_the_published_closed_forms(make_lake, request_of, take):
    """Mixtral, 2 of 8: 12.5 % and 46.4 %; 8 of 64: 67.9 %; 3 of 5 always share."""
    for folder, num_experts, top_k, wanted in (
        ("a", 8, 2, 0.464),
        ("b", 64, 8, 1 - comb(56, 8) / comb(64, 8)),
        ("c", 5, 3, 1.0),
    ):
        tokens = [{0: dict.fromkeys(range(top_k), 0.1)}] * 2
        lake = make_lake(
            [request_of("q", "law", tokens)], num_experts=num_experts, top_k=top_k, folder=folder
        )
        (row,) = take(lake, "repetition").to_dicts()
        assert row["any_choice_closed_form"] == pytest.approx(wanted, abs=3e-4)
        assert row["first_choice_closed_form"] == 1 / num_experts
        assert row["first_choice"] == row["any_choice"] == row["shared"] == 1


@pytest.mark.parametrize("tokens", ["all", "generated"])
def test_beside_numpy(made, take, tokens):
    lake, requests = made
    choices = arrays_of(requests, tokens)
    found = take(lake, "repetition", tokens=tokens)
    rows = []
    for layer, ids in choices.ids.items():
        for phase in ("prompt", "generated"):
            first, common = [], []
            for t in range(1, len(ids)):
                same = choices.request[t] == choices.request[t - 1]
                if same and choices.phase[t] == choices.phase[t - 1] == phase:
                    first.append(ids[t, 0] == ids[t - 1, 0])
                    common.append(len(set(ids[t]) & set(ids[t - 1])))
            if first:
                common = np.array(common)
                shares = (np.mean(first), np.mean(common > 0), np.mean(common) / TOP_K)
                rows.append((layer, phase, len(first), *shares))
    assert found.select("layer_id", "phase", "num_pairs").rows() == [row[:3] for row in rows]
    values = found.select("first_choice", "any_choice", "shared").to_numpy()
    np.testing.assert_allclose(values, [row[3:] for row in rows], rtol=0, atol=1e-12)


def test_last_prompt_tokens_have_no_neighbours(made, take):
    assert take(made[0], "repetition", tokens="last-prompt").is_empty()


def test_order_is_what_chance_breaks(make_lake, request_of, take):
    """Ten times (0, 1), then ten times (2, 3): 18 of 19 repeat.

    In any order a token's neighbour is one of the 9 others of its kind among 19: 9 / 19.
    """
    tokens = [token(0, 1)] * 10 + [token(2, 3)] * 10
    (row,) = take(make_lake([request_of("q", "law", tokens)]), "repetition", draws=49).to_dicts()
    assert row["first_choice"] == row["any_choice"] == row["shared"] == 18 / 19
    for value in ("first_choice", "any_choice", "shared"):
        assert row[f"{value}_chance"] == pytest.approx(9 / 19, abs=0.05)
        assert row[f"{value}_p"] == 2 / 50


def test_even_choices_have_the_closed_forms(make_lake, request_of, take):
    """600 tokens with two of eight experts each, drawn evenly: all is chance."""
    rng = np.random.default_rng(4)
    tokens = [token(*rng.permutation(NUM_EXPERTS)[:TOP_K].tolist()) for _ in range(600)]
    (row,) = take(make_lake([request_of("q", "law", tokens)]), "repetition", draws=19).to_dicts()
    for value, spread in (("first_choice", 0.01), ("any_choice", 0.02), ("shared", 0.01)):
        assert row[f"{value}_chance"] == pytest.approx(row[f"{value}_closed_form"], abs=spread)
        assert row[f"{value}_p"] > 0.1
