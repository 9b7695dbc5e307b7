"""expert_purity: by hand, beside NumPy, and against exchanged domains."""

import math

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, arrays_of, assert_mean_of, usage_of


def test_by_hand(make_lake, request_of, take):
    """Law's tokens choose {0, 1} and {0, 2}, art's {1, 2} and {1, 2}.

    Expert 0: 2 of law. Expert 1: 1 of law, 2 of art; so expert 2. Purity (2 + 2 + 2) / 8, largest
    domain 4 / 8. H(D | E) = 6/8 of (1/3 ln 3 + 2/3 ln 3/2) = 6/8 (ln 3 - 2/3 ln 2). I is ln 2 less
    that; H(E) = 1/4 ln 4 + 2 * 3/8 ln 8/3, H(D) = ln 2.
    """
    law = [{3: {0: 0.6, 1: 0.4}}, {3: {0: 0.6, 2: 0.4}}]
    art = [{3: {1: 0.6, 2: 0.4}}] * 2
    lake = make_lake([request_of("a", "law", law), request_of("b", "art", art)], num_experts=4)
    left = 6 / 8 * (math.log(3) - 2 / 3 * math.log(2))
    expert = math.log(4) / 4 + 6 / 8 * math.log(8 / 3)
    shared = 2 * (math.log(2) - left) / (expert + math.log(2))
    (row,) = take(lake, "expert_purity").rows()
    assert row == pytest.approx((3, 0.75, 0.5, shared, left))


def values(usage, domain):
    """(purity, normalised information, label entropy) by layer, through conditional entropies."""
    rows = []
    for layer in LAYERS:
        names = sorted(set(domain))
        table = np.array([usage.counts[layer][domain == name].sum(0) for name in names])
        share = table / table.sum()
        left = told = 0.0
        for column in share.T[share.sum(0) > 0]:
            given = column[column > 0] / column.sum()
            left -= column.sum() * (given * np.log(given)).sum()
            told -= column.sum() * np.log(column.sum())
        labels = -(share.sum(1) * np.log(share.sum(1))).sum()
        rows.append((share.max(0).sum(), (labels - left) / ((labels + told) / 2), left))
    return np.array(rows)


@pytest.mark.parametrize("tokens", ["all", "prompt"])
def test_beside_numpy(made, take, tokens):
    lake, requests = made
    usage = usage_of(arrays_of(requests, tokens))
    found = take(lake, "expert_purity", tokens=tokens)
    names = ("purity", "normalised_information", "label_entropy")
    np.testing.assert_allclose(
        found.select(names).to_numpy(), values(usage, usage.domain), rtol=0, atol=1e-12
    )
    choices = arrays_of(requests, tokens).domain
    largest = np.unique(choices, return_counts=True)[1].max() / len(choices)
    assert found["largest_domain"].to_list() == pytest.approx([largest] * len(LAYERS))


def test_the_plant_is_purer_than_exchanged_domains(planted, take):
    """The means by chance are those of 500 exchanges of labels in NumPy."""
    lake, requests = planted
    usage = usage_of(arrays_of(requests))
    found = take(lake, "expert_purity", draws=29)
    rng = np.random.default_rng(0)
    simulated = np.array([values(usage, rng.permutation(usage.domain)) for _ in range(500)])
    for column, name in enumerate(("purity", "normalised_information", "label_entropy")):
        assert_mean_of(found[f"{name}_chance"], simulated[:, :, column], 29)
    assert (found["purity"] > found["purity_chance"]).all()
    assert (found["normalised_information_p_adjusted"] <= 1 / 30 + 1e-9).all()
    assert (found["label_entropy_p_adjusted"] <= 1 / 30 + 1e-9).all()
    assert (found["label_entropy"] < found["label_entropy_chance_low"]).all()
