"""load_balance: by hand, beside NumPy, and its two values that chance has in closed form."""

import math

import numpy as np
import pytest

from tests.analysis.measures.conftest import NUM_EXPERTS, TOP_K, arrays_of


def test_by_hand(make_lake, request_of, take):
    """Three tokens choose {0, 1}, {0, 2}, {0, 1}: loads 3/6, 2/6, 1/6 and 0, mean 1/4.

    MaxVio (1/2 - 1/4) / (1/4) = 1. Squared distances from 1/4 are 1/16, 1/144, 1/144, 1/16: their
    mean is 20/576, so CV = 4 sqrt(20) / 24. Entropy ln(2)/2 + ln(3)/3 + ln(6)/6; sum of squares
    14/36. Gini (-3 * 0 - 1 * 1/6 + 1 * 2/6 + 3 * 3/6) / 4 = 10/24. One of 4 is never chosen.
    Chance, k = 2, n = 3: CV sqrt((4 - 2) / (2 * 3)), never chosen (1/2)^3.
    """
    tokens = [{3: {0: 0.6, 1: 0.4}}, {3: {0: 0.6, 2: 0.4}}, {3: {0: 0.6, 1: 0.4}}]
    lake = make_lake([request_of("q", "law", tokens)], num_experts=4)
    entropy = math.log(2) / 2 + math.log(3) / 3 + math.log(6) / 6
    (row,) = take(lake, "load_balance").rows()
    assert row[:4] == (3, 3, 0.0, 0.5)
    assert row[4:] == pytest.approx(
        (
            1,
            math.sqrt(20) / 6,
            math.sqrt(1 / 3),
            entropy,
            math.exp(entropy),
            math.exp(entropy) / 4,
            36 / 14,
            9 / 14,
            10 / 24,
            1 / 4,
            1 / 8,
        ),
        abs=1e-12,
    )


@pytest.mark.parametrize("tokens", ["all", "prompt", "last-prompt"])
def test_beside_numpy(made, take, tokens):
    """The Gini here is the mean distance of two loads over twice their mean."""
    lake, requests = made
    found = take(lake, "load_balance", tokens=tokens)
    ids_of = arrays_of(requests, tokens).ids
    assert found["layer_id"].to_list() == list(ids_of)
    for row, ids in zip(found.iter_rows(named=True), ids_of.values(), strict=True):
        load = np.bincount(ids.ravel(), minlength=NUM_EXPERTS) / ids.size
        some = load[load > 0]
        hill = np.exp(-(some * np.log(some)).sum()), 1 / (load**2).sum()
        expected = {
            "num_tokens": len(ids),
            "min_load": load.min(),
            "max_load": load.max(),
            "max_violation": (load.max() - load.mean()) / load.mean(),
            "load_cv": load.std() / load.mean(),
            "load_entropy": np.log(hill[0]),
            "effective_experts": hill[0],
            "effective_share": hill[0] / NUM_EXPERTS,
            "inverse_concentration": hill[1],
            "inverse_concentration_share": hill[1] / NUM_EXPERTS,
            "load_gini": np.abs(load[:, None] - load).mean() / 2 / load.mean(),
            "never_chosen": (load == 0).mean(),
        }
        assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_one_token_leaves_experts_unchosen_as_often_as_chance_says(make_lake, request_of, take):
    """2 tokens of k = 2 of 8: each expert is left out with (3/4)^2. The tokens share 2, 1 or 0 of
    their experts in 1, 12 and 15 of 28 cases, with a CV of sqrt(3), sqrt(2) and 1; its root mean
    square is sqrt(3/2)."""
    lake = make_lake([request_of("q", "law", [{0: {0: 0.5, 1: 0.5}}] * 2)])
    found = take(lake, "load_balance", draws=49)
    assert found["never_chosen_closed_form"].item() == pytest.approx(9 / 16)
    assert found["never_chosen_chance"].item() == pytest.approx(9 / 16, abs=0.04)
    cases = np.repeat([math.sqrt(3), math.sqrt(2), 1], [1, 12, 15])
    assert found["load_cv_closed_form"].item() == pytest.approx(math.sqrt((cases**2).mean()))
    error = cases.std() / math.sqrt(49)
    assert found["load_cv_chance"].item() == pytest.approx(cases.mean(), abs=3 * error)


def test_the_plant_is_less_even_than_chance(made, take):
    """CV by chance: below its root mean square and near it. The planted committee stands out."""
    found = take(made[0], "load_balance", draws=24)
    n = found["num_tokens"][0]
    bound = math.sqrt((NUM_EXPERTS - TOP_K) / (TOP_K * n))
    assert found["load_cv_closed_form"].to_list() == pytest.approx([bound] * found.height)
    assert (found["load_cv_chance"] < bound * 1.1).all()
    assert (found["load_cv_chance"] > bound * 0.8).all()
    assert (found["load_cv_p"] <= 0.08).all()  # expert 7 is never chosen, in both runs
    assert (found["load_cv"] > found["load_cv_chance_high"]).all()
    assert (found["effective_experts"] < found["effective_experts_chance_low"]).all()
